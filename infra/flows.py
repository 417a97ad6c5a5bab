"""One flow in one process: what `premiere run FLOW` does.

Everything that a dataflow touches is made here from the settings and handed to its `build(...)`. SIGTERM and Ctrl-C set
an event that ends the sources; the engine then drains, takes a last snapshot and returns, and the process exits 0.
State and offsets lie in a recovery store of their own per flow and per log: an offset of another log would be waited
for in silence, for ever.
"""

import gc
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from infra import metrics
from infra.errors import PremiereError, SettingsError
from infra.flow import Flow
from infra.lag import READS
from infra.learning import learn
from infra.publishing import publish
from infra.settings import Settings
from infra.topics import identity
from streaming import topics as t
from streaming.broker import StreamError
from streaming.kafka import KafkaSource
from streaming.kafka_sink import KafkaSink

if TYPE_CHECKING:
    from feast import FeatureStore  # a second of import that only two flows need

IDLE: Final = timedelta(seconds=1)  # of silence, after which a source says so
EMBEDDED: Final = "premiere-"  # how the embedded broker's cluster ids begin


def run(flow: str, settings: Settings) -> None:
    """Run one flow until it is asked to stop. Raises PremiereError where the world is not as it must be."""
    stop = threading.Event()
    _stop_on_signals(stop)
    metrics.serve(settings, flow)
    epoch = timedelta(seconds=settings.epoch_seconds)
    try:
        store = recovery(settings, flow) if flow in RECOVERS else None
        dataflow, sources = BUILD[flow](settings, stop)
        gc.freeze()  # what is loaded by now stays: collections need not walk it
        cli_main(dataflow, epoch_interval=epoch, recovery_config=store)
        for source in sources:
            source.commit()
    except Exception as error:
        if (known := _known(error)) is not None:
            raise PremiereError(f"The flow {flow} cannot go on. {known}") from error
        raise


def _known(error: BaseException | None) -> BaseException | None:
    """The error of the world behind what the engine raised, if it is one: those have a sentence to tell."""
    while error is not None and not isinstance(error, PremiereError | StreamError):
        error = error.__cause__ or error.__context__
    return error


def recovery(settings: Settings, flow: str) -> RecoveryConfig:
    """The flow's recovery store for the log as it is now, made where it is not; those of past embedded brokers go."""
    root = settings.data_dir / "recovery" / flow
    store = root / identity(settings.kafka(), READS[flow])
    for past in root.glob(f"{EMBEDDED}*"):
        if past != store:
            shutil.rmtree(past, ignore_errors=True)
    if not store.exists():
        fresh = store.with_suffix(".new")  # a store half made would be an error for ever
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        init_db_dir(fresh, 1)
        fresh.rename(store)
    return RecoveryConfig(store, timedelta(0))


def _stop_on_signals(stop: threading.Event) -> None:
    """The first SIGTERM or Ctrl-C asks to drain; a second one of the kind acts at once."""

    def ask(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)


def features(settings: Settings, stop: threading.Event) -> Flow:
    """Events to histories: Feast's user_activity and the learner's log."""
    from features.definitions import USER_ROW
    from features.store import offline_folder, write_user_activity
    from streaming.features import build
    from streaming.offline import ParquetSink
    from streaming.online import FeastSink

    config = settings.kafka()
    events = KafkaSource(config, t.USER_EVENTS, "features", idle=IDLE, stop=stop)
    dataflow = build(
        events=events,
        activity=KafkaSink(config, stop=stop),
        online=FeastSink(partial(write_user_activity, _open(settings)), stop=stop),
        offline=ParquetSink(offline_folder(_feast(settings), "user_activity"), 1, USER_ROW),
        dead_letters=KafkaSink(config, stop=stop),
        history=settings.history,
    )
    return Flow(dataflow, [events])


def titles(settings: Settings, stop: threading.Event) -> Flow:
    """Launches to titles: Feast's title_semantics, the catalogue and the learner's log."""
    from features.definitions import TITLE_ROW
    from features.store import offline_folder, write_title_semantics
    from features.text import EncoderError, load_encoder
    from streaming.offline import ParquetSink
    from streaming.online import FeastSink
    from streaming.titles import build

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


BUILD: Final[Mapping[str, Callable[[Settings, threading.Event], Flow]]] = {
    "features": features,
    "titles": titles,
    "learn": learn,
    "publish": publish,
}
RECOVERS: Final = ("features", "titles")  # the others' state is a checkpoint, or a cache made from the log
