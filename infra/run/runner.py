"""One flow in one process: what `premiere run FLOW` does.

Everything that a dataflow touches is made here from the settings and handed to its `build(...)`. SIGTERM and Ctrl-C set
an event that ends the sources; the engine then drains, takes a last snapshot and returns, and the process exits 0.
State and offsets lie in a recovery store of their own per flow and per log: an offset of another log would be waited
for in silence, for ever.
"""

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

from infra.errors import PremiereError, SettingsError
from infra.local import data_lock
from infra.monitor import lag_exporter, metrics_server
from infra.monitor.lag import READS
from infra.operate.compaction_schedule import keep_compact
from infra.run.flow import Flow
from infra.run.learn import learn
from infra.run.prune_recovery import sweep
from infra.run.publish import publish
from infra.run.workers import ALONE, Worker, stop_on_signals
from infra.settings import Settings
from infra.topics import identity
from streaming import topics as t
from streaming.kafka.client import StreamError
from streaming.kafka.sink import KafkaSink
from streaming.kafka.source import KafkaSource

if TYPE_CHECKING:
    from feast import FeatureStore  # a second of import that only two flows need

IDLE: Final = timedelta(seconds=1)  # of silence, after which a source says so
EMBEDDED: Final = "premiere-"  # how the embedded broker's cluster ids begin


def run(flow: str, settings: Settings, worker: Worker = ALONE) -> None:
    """Run one flow, or a worker of it, until it is asked to stop. Raises PremiereError where it cannot go on."""
    _held = data_lock.hold(settings.data_dir)
    stop = threading.Event()
    stop_on_signals(stop)
    metrics_server.serve(settings, flow, worker.index)
    epoch = timedelta(seconds=settings.epoch_seconds)
    try:
        store = recovery(settings, flow) if flow in RECOVERS else None
        dataflow, sources = BUILD[flow](settings, stop, worker)
        if worker.index == 0 and settings.metrics_port:  # the group is one, whatever shares its work
            lag_exporter.start(settings.kafka(), flow, stop)
        gc.freeze()  # what is loaded by now stays: collections need not walk it
        cli_main(dataflow, epoch_interval=epoch, recovery_config=store, **_cluster(worker))
        if not stop.is_set():  # the engine can end well without having done its work (measured, in a cluster)
            raise PremiereError("It ended without being asked to: start it again, it goes on where it was.")
        for source in sources:
            source.commit()
    except Exception as error:
        if (known := _known(error)) is not None:
            raise PremiereError(f"The flow {flow} cannot go on. {known}") from error
        raise


def _cluster(worker: Worker) -> dict[str, Any]:
    """How the engine finds the other workers."""
    return {"process_id": worker.index, "addresses": list(worker.addresses)} if worker.addresses else {}


def _known(error: BaseException | None) -> BaseException | None:
    """The error of the world behind what the engine raised, if it is one: those have a sentence to tell."""
    while error is not None and not isinstance(error, PremiereError | StreamError):
        error = error.__cause__ or error.__context__
    return error


def recovery(settings: Settings, flow: str) -> RecoveryConfig:
    """The flow's recovery store for the log as it is now, made where it is not; those of past embedded brokers go."""
    root = settings.data_dir / "recovery" / flow
    store = root / identity(settings.kafka(), READS[flow])
    for history in root.glob(f"{EMBEDDED}*"):
        if history != store:
            shutil.rmtree(history, ignore_errors=True)
    if not store.exists():
        root.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="new-", dir=root))  # a store half made would be an error for ever
        init_db_dir(fresh, settings.recovery_partitions)
        try:
            fresh.rename(store)
        except OSError:  # another worker was faster
            shutil.rmtree(fresh)
    sweep(store)
    return RecoveryConfig(store, timedelta(0))


def features(settings: Settings, stop: threading.Event, worker: Worker = ALONE) -> Flow:
    """Events to histories: Feast's user_activity and the learner's log."""
    from features.definitions import FORGOTTEN, FORGOTTEN_ROW, USER_ROW
    from features.store import offline_folder, write_user_activity
    from streaming.flows.features import build
    from streaming.stores.feast_online import PARTS, FeastSink
    from streaming.stores.parquet_log import ParquetSink

    config = settings.kafka()
    events = KafkaSource(config, t.USER_EVENTS, "features", idle=IDLE, stop=stop)
    dataflow = build(
        events=events,
        activity=KafkaSink(config, stop=stop),
        online=FeastSink(partial(write_user_activity, _open(settings)), PARTS, stop=stop),
        offline=ParquetSink(offline_folder(_feast(settings), "user_activity"), 1, USER_ROW),
        forgotten=ParquetSink(offline_folder(_feast(settings), FORGOTTEN), 1, FORGOTTEN_ROW),
        dead_letters=KafkaSink(config, stop=stop),
        history=settings.history,
        writers=worker.count,
    )
    if worker.index == 0:
        keep_compact(settings, stop)
    return Flow(dataflow, [events])


def titles(settings: Settings, stop: threading.Event, worker: Worker = ALONE) -> Flow:
    """Launches to titles: Feast's title_semantics, the catalogue and the learner's log."""
    from features.definitions import TITLE_ROW
    from features.store import offline_folder, write_title_semantics
    from features.text_encoders import EncoderError, load_encoder
    from streaming.flows.titles import build
    from streaming.stores.feast_online import FeastSink
    from streaming.stores.parquet_log import ParquetSink

    config = settings.kafka()
    launches = KafkaSource(config, t.TITLE_LAUNCHES, "titles", idle=IDLE, stop=stop)
    try:
        encode = load_encoder(settings.text_encoder)
    except EncoderError as error:
        raise SettingsError(str(error)) from error
    dataflow = build(
        launches=launches,
        titles=KafkaSink(config, stop=stop),
        activity=KafkaSink(config, stop=stop),
        online=FeastSink(partial(write_title_semantics, _open(settings)), stop=stop),
        offline=ParquetSink(offline_folder(_feast(settings), "title_semantics"), 1, TITLE_ROW),
        dead_letters=KafkaSink(config, stop=stop),
        encode=encode,
    )
    return Flow(dataflow, [launches])


def _feast(settings: Settings) -> Path:
    """The folder of the Feast repository."""
    return settings.data_dir.resolve() / "feast"


def _open(settings: Settings) -> "FeatureStore":
    from features.store import StoreError, open_store

    try:
        return open_store(settings.redis(), _feast(settings))
    except StoreError as error:
        raise SettingsError(str(error)) from error


BUILD: Final[Mapping[str, Callable[[Settings, threading.Event, Worker], Flow]]] = {
    "features": features,
    "titles": titles,
    "learn": lambda settings, stop, _: learn(settings, stop),
    "publish": publish,
}
RECOVERS: Final = ("features", "titles")  # the others' state is a checkpoint, or a cache made from the log
