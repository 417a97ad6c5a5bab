"""Runs one flow in one process (`premiere run FLOW`).

It builds the sources, sinks and clients of a dataflow from the settings and passes them to the flow's `build(...)`.
SIGTERM and Ctrl-C set an event that ends the sources. The engine then drains, writes a last snapshot and returns, and
the process exits with 0. Each flow has one recovery store (state and offsets) per log: with offsets of another log the
flow would wait forever without an error.
"""

import errno
import gc
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from infra.errors import FlowOwnedError, PremiereError, SettingsError
from infra.local import data_lock
from infra.monitor import lag_exporter, metrics_server
from infra.monitor.lag import FLOW_TOPICS
from infra.operate.compaction_schedule import event_retention_days, start_compaction_thread
from infra.run.clock_watch import start_clock_watch
from infra.run.feast_watch import start_feast_watch
from infra.run.flow import Flow
from infra.run.learn import learn
from infra.run.owner import own_worker
from infra.run.partition_rule import partition_rule
from infra.run.prune_recovery import prune_recovery_store
from infra.run.publish import publish
from infra.run.starts import counted_start
from infra.run.workers import SINGLE_WORKER, Worker, stop_on_signals
from infra.settings import Settings
from infra.topics import EMBEDDED_LOGS, log_identity
from streaming import phase
from streaming import topics as t
from streaming.errors import OwnedElsewhereError, StreamError
from streaming.kafka.ownership import SOLE_PROCESS, Owner
from streaming.kafka.sink import KafkaSink
from streaming.kafka.source import KafkaSource
from streaming.stores.lost_rows import LostRows

if TYPE_CHECKING:
    from feast import FeatureStore  # its import takes one second, and only two flows need it

    from features.text_encoders import TextEncoder
    from streaming.state.user_state import Lifetimes

USERS_PER_SECOND: Final = 1_000  # whose lost rows a worker writes again
TITLES_PER_SECOND: Final = 100  # their texts are embedded again
IDLE_INTERVAL: Final = timedelta(seconds=1)  # without records, after which a source emits an idle marker


def run(flow: str, settings: Settings, worker: Worker = SINGLE_WORKER) -> None:
    """Run one flow, or a worker of it, until SIGTERM or Ctrl-C. Raises PremiereError if it cannot continue."""
    _lock = data_lock.hold_shared(settings.data_dir)
    worker_lock = data_lock.hold_flow(settings.data_dir, flow, worker.index)
    stop = threading.Event()
    stop_on_signals(stop)
    metrics_server.start_metrics_server(settings, flow, worker.index)
    epoch = timedelta(seconds=settings.epoch_seconds)
    try:
        with (
            counted_start(settings.data_dir, flow, worker.index),
            own_worker(settings, flow, worker, stop, worker_lock is not None) as owner,
        ):
            store = recovery_store(settings, flow) if flow in RECOVERABLE_FLOWS else None
            dataflow, sources = FLOW_BUILDERS[flow](settings, stop, worker, owner)
            if worker.index == 0 and settings.metrics_port:  # the workers share one consumer group
                lag_exporter.start_lag_exporter(settings.kafka_config(), flow, stop)
            start_clock_watch(stop)
            phase.catch_up(is_ready_at_end=flow != "publish")  # which is ready once it serves a version
            gc.freeze()  # objects loaded so far are permanent: garbage collections skip them
            cli_main(dataflow, epoch_interval=epoch, recovery_config=store, **_cluster_options(worker))
            if not stop.is_set():  # a cluster's engine can return without an error before its work is done (measured)
                raise PremiereError("It ended without a request to stop. Start it again to continue.")
            owner.check()
            for source in sources:
                source.commit()
    except Exception as error:
        if isinstance(expected := _expected_error(error), OwnedElsewhereError):
            raise FlowOwnedError(f"The flow {flow} cannot continue. {expected}") from error
        if expected is not None:
            kind = type(expected) if isinstance(expected, SettingsError) else PremiereError
            raise kind(f"The flow {flow} cannot continue. {expected}") from error
        raise


def _cluster_options(worker: Worker) -> dict[str, Any]:
    """The engine's options for the other workers of a cluster."""
    return {"process_id": worker.index, "addresses": list(worker.addresses)} if worker.addresses else {}


def _expected_error(error: BaseException | None) -> BaseException | None:
    """The named error in the exception chain, which has a message for the operator; None if there is none."""
    while error is not None and not isinstance(error, PremiereError | StreamError):
        if _is_disk_full(error):
            return PremiereError(
                "The disk of the data folder is full: free space on it. The next start continues where it stopped."
            )
        error = error.__cause__ or error.__context__
    return error


def _is_disk_full(error: BaseException) -> bool:
    """Whether the offline log or the engine's recovery store could not be written. The engine has no class for it."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, RuntimeError) and "DiskFull" in str(error)


def recovery_store(settings: Settings, flow: str) -> RecoveryConfig:
    """The flow's recovery store for the current log, created if missing. Deletes those of former embedded brokers."""
    root = settings.data_dir / "recovery" / flow
    store = root / log_identity(settings.kafka_config(), FLOW_TOPICS[flow])
    for other in root.glob(f"{EMBEDDED_LOGS}*"):
        if other != store:
            shutil.rmtree(other, ignore_errors=True)
    if not store.exists():
        root.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix="new-", dir=root))  # renamed when complete: no start could use a partial one
        init_db_dir(new, settings.recovery_partitions)
        try:
            new.rename(store)
        except OSError:  # another worker was faster
            shutil.rmtree(new)
    prune_recovery_store(store)
    return RecoveryConfig(store, timedelta(0))


def features(
    settings: Settings, stop: threading.Event, worker: Worker = SINGLE_WORKER, owner: Owner = SOLE_PROCESS
) -> Flow:
    """Build the flow `features`: user events to histories in Feast's user_activity and in the learner log."""
    from features.definitions import USER_ACTIVITY_SCHEMA, USER_ERASURES, USER_ERASURES_SCHEMA, USER_TTL
    from features.store import offline_folder, write_user_activity
    from streaming.flows.features import build
    from streaming.stores.feast_online import SINK_PARTITIONS, FeastSink
    from streaming.stores.parquet_log import ParquetSink

    config = settings.kafka_config()
    events = KafkaSource(config, t.USER_EVENTS, "features", idle=IDLE_INTERVAL, stop=stop)
    requests = KafkaSource(config, t.ERASURE_REQUESTS, "features", stop=stop)
    sink = partial(KafkaSink, config, stop=stop, owner=owner, transactional=use_transactions(settings))
    store, lost_rows = open_feature_store(settings), LostRows(USERS_PER_SECOND, stop, USER_TTL)
    dataflow = build(
        events=events,
        requests=requests,
        activity=sink(),
        online=FeastSink(partial(write_user_activity, store), SINK_PARTITIONS, stop=stop, owner=owner),
        offline=ParquetSink(offline_folder(feast_folder(settings), "user_activity"), 1, USER_ACTIVITY_SCHEMA),
        erasures=ParquetSink(offline_folder(feast_folder(settings), USER_ERASURES), 1, USER_ERASURES_SCHEMA),
        dead_letters=sink(),
        history=settings.activity_history,
        online_shards=worker.count,
        events_id=log_identity(config, [t.USER_EVENTS]),
        requests_id=log_identity(config, [t.ERASURE_REQUESTS]),
        partition_rule=partition_rule(settings, t.USER_EVENTS),
        lifetimes=_lifetimes(settings),
        lost_rows=lost_rows,
    )
    start_feast_watch(store, "user_activity", f"features-{worker.index}", lost_rows, stop)
    if worker.index == 0:
        start_compaction_thread(settings, stop)
    return Flow(dataflow, [events, requests])


def titles(
    settings: Settings,
    stop: threading.Event,
    worker: Worker = SINGLE_WORKER,
    owner: Owner = SOLE_PROCESS,
    encode: "TextEncoder | None" = None,
) -> Flow:
    """Build the flow `titles`: launches to titles in Feast's title_semantics, the catalog and the learner log.

    `encode` is the text encoder, by default that of the settings. Raises SettingsError, OtherEncoderError.
    """
    from features.definitions import TITLE_SEMANTICS_SCHEMA
    from features.store import offline_folder, write_title_semantics
    from streaming.flows.titles import build
    from streaming.state.text_space import start_text_space
    from streaming.state.title_embedder import TitleEmbedder, VectorSpace
    from streaming.stores.feast_online import FeastSink
    from streaming.stores.parquet_log import ParquetSink

    config = settings.kafka_config()
    launches = KafkaSource(config, t.TITLE_LAUNCHES, "titles", idle=IDLE_INTERVAL, stop=stop)
    withdrawals = KafkaSource(config, t.TITLE_WITHDRAWALS, "titles", stop=stop)
    encode = encode or configured_encoder(settings)
    sink = partial(KafkaSink, config, stop=stop, owner=owner, transactional=use_transactions(settings))
    vectors = VectorSpace.parse(settings.title_vectors)
    start_text_space(config, TitleEmbedder(encode, vectors).space, sink())
    store, lost_rows = open_feature_store(settings), LostRows(TITLES_PER_SECOND, stop)
    dataflow = build(
        launches=launches,
        withdrawals=withdrawals,
        titles=sink(),
        activity=sink(),
        online=FeastSink(partial(write_title_semantics, store), stop=stop, owner=owner),
        offline=ParquetSink(offline_folder(feast_folder(settings), "title_semantics"), 1, TITLE_SEMANTICS_SCHEMA),
        dead_letters=sink(),
        encode=encode,
        vectors=vectors,
        lifetime_ms=_lifetimes(settings).user_ms,
        max_titles=2 * settings.max_titles,
        lost_rows=lost_rows,
    )
    start_feast_watch(store, "title_semantics", f"titles-{worker.index}", lost_rows, stop)
    return Flow(dataflow, [launches, withdrawals])


def configured_encoder(settings: Settings) -> "TextEncoder":
    """The text encoder of the settings. Raises SettingsError if it is not available."""
    from features.text_encoders import EncoderError, load_encoder

    try:
        return load_encoder(settings.text_encoder)
    except EncoderError as error:
        raise SettingsError(str(error)) from error


def use_transactions(settings: Settings) -> bool:
    """Whether Kafka fences replaced processes. With the embedded broker all run on one machine: its lock suffices."""
    return settings.transactions and not log_identity(settings.kafka_config(), [t.ACTIVITY]).startswith(EMBEDDED_LOGS)


def _lifetimes(settings: Settings) -> "Lifetimes":
    """How long keyed states are kept: as long as the offline log keeps rows, and new users for 30 days."""
    from streaming.state.expiry import DAY_MS, FOREVER
    from streaming.state.user_state import Lifetimes

    kept_ms = settings.offline_days * DAY_MS if settings.offline_days else FOREVER
    new_user_ms = min(kept_ms, Lifetimes().new_user_ms)
    return Lifetimes(user_ms=kept_ms, new_user_ms=new_user_ms, event_ms=event_retention_days() * DAY_MS)


def feast_folder(settings: Settings) -> Path:
    """The folder of the Feast repository."""
    return settings.data_dir.resolve() / "feast"


def open_feature_store(settings: Settings) -> "FeatureStore":
    from features.store import StoreError, open_store

    try:
        return open_store(settings.require_redis_url(), feast_folder(settings), settings.namespace)
    except StoreError as error:
        raise SettingsError(str(error)) from error


FLOW_BUILDERS: Final[Mapping[str, Callable[[Settings, threading.Event, Worker, Owner], Flow]]] = {
    "features": features,
    "titles": titles,
    "learn": lambda settings, stop, _, owner: learn(settings, stop, owner),
    "publish": publish,
}
RECOVERABLE_FLOWS: Final = ("features", "titles")  # the others' state is a checkpoint, or a cache made from the topics
