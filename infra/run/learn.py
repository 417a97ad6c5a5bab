"""The learner from the settings: the flow `learn`, and what a server must know to read its versions."""

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer

from infra.errors import PremiereError, SettingsError
from infra.run.flow import Flow
from infra.settings import Settings
from infra.topics import identity
from streaming import topics as t
from streaming.kafka.client import beginning, consuming
from streaming.kafka.sink import KafkaSink
from streaming.kafka.source import KafkaSource

if TYPE_CHECKING:
    from model.learner import LearnerSettings
    from streaming.state.log_learner import LogLearner, LogSettings

log = logging.getLogger(__name__)

POLL: Final = 8  # records, of up to a hundred events each: a poll is learned before the next signal is heard
IDLE: Final = timedelta(milliseconds=500)  # of silence, after which a checkpoint is announced all the same


class LogCutError(PremiereError):
    """The log's beginning is gone, and nothing stands for it."""


def learner_settings(settings: Settings) -> "LearnerSettings":
    """What the settings say of the model."""
    from model.learner import LearnerSettings
    from model.sequence.model import SequenceSettings
    from model.sequence.network import preset
    from model.sequence.objective import ObjectiveSettings
    from model.state.stream_state import MemorySettings

    windows = tuple(1 if horizon == 0 else max(5, horizon) for horizon in settings.horizons)
    sequence = SequenceSettings(preset(settings.model, settings.horizons), ObjectiveSettings(windows=windows))
    memory = MemorySettings(most_titles=settings.max_titles)
    return LearnerSettings(memory, sequence, repeats=not settings.filter_seen, seed=settings.seed)


def numerics(threads: int) -> None:
    """How this process multiplies matrices: with its own threads only, since several flows share the machine.

    The precision stays torch's highest. A lower one takes oneDNN's products, which are faster for one shape again and
    again; ours differ at each step, each is compiled and kept, and that cost 10 to 25 % more CPU and 900 MB (measured).
    """
    import torch

    torch.set_num_threads(threads)


def learn(settings: Settings, stop: threading.Event) -> Flow:
    """From the newest whole checkpoint on, or from the log's beginning where there is none. Raises SettingsError,
    LogCutError."""
    from infra.operate.versions import announced
    from model.learner import Learner
    from streaming.flows.learn import build
    from streaming.state.checkpoints import Checkpoints, version
    from streaming.state.log_learner import LogLearner

    numerics(settings.threads)
    config = settings.kafka()
    mine = identity(config, [t.ACTIVITY])
    checkpoints = Checkpoints(settings.checkpoints_url(), settings.keep_checkpoints, mine, settings.anchor_hours)
    learner = LogLearner(Learner(learner_settings(settings)), log_settings(settings))
    unannounced = None
    found, first = checkpoints.newest(), first_offset(config)
    if found is None and first > 0:
        raise LogCutError(
            f"The log {t.ACTIVITY} begins at offset {first} and there is no checkpoint to go on from: put one into "
            f"{settings.checkpoints_url()} (one of another log gives its weights), or delete the topic and run "
            "`premiere topics --create`, to learn from what comes."
        )
    if found is not None:
        state, manifest, url = found
        check_settings(manifest, learner.learner.settings, url)
        same_log = manifest["log"] == mine
        learner.load_state_dict(state, same_log)
        manifest = manifest if same_log else {**manifest, "position": 0, "learned": 0}
        known = {one.path for one in announced(config).values()}
        unannounced = None if url in known else version(url, manifest)
        _skip(learner, first, same_log)
    durable = {0: learner.position} if learner.position else {}
    source = KafkaSource(
        config, t.ACTIVITY, "learn", start={0: learner.position} if learner.position else "earliest",
        idle=IDLE, batch=POLL, durable=durable, stop=stop,
    )  # fmt: skip
    dataflow = build(
        activity=source,
        versions=KafkaSink(config, stop=stop),
        learner=learner,
        checkpoints=checkpoints,
        durable=durable,
        unannounced=unannounced,
        stop=stop,
    )
    return Flow(dataflow, [source])


def log_settings(settings: Settings) -> "LogSettings":
    """How the learner cuts its log, and how often it writes checkpoints."""
    from streaming.state.log_learner import LogSettings

    return LogSettings(checkpoint=round(settings.checkpoint_seconds * 1000))


def first_offset(config: Mapping[str, str]) -> int:
    """Where the learner's log begins. Raises StreamError."""
    consumer = Consumer(consuming(config, "learn"))
    try:
        return beginning(consumer, t.ACTIVITY, 0)
    finally:
        consumer.close()


def _skip(learner: "LogLearner", first: int, same_log: bool) -> None:
    """Go on where the log begins, and say what is gone: it was never learned, and waiting would not bring it back."""
    from streaming.flows.learn import GONE

    gone = learner.skip_to(first)
    if gone and same_log:
        GONE.set(gone)
        log.warning(
            "%s begins at offset %d now: %d records were cut off by retention before they were learned; the weights "
            "go on without them.", t.ACTIVITY, first, gone,
        )  # fmt: skip


def check_settings(manifest: Mapping[str, Any], settings: "LearnerSettings", url: str) -> None:
    """Raises SettingsError where the checkpoint's model is another one."""
    now, defaults = (json.loads(json.dumps(asdict(one))) for one in (settings, type(settings)()))
    if (made := _filled(manifest.get("settings", now), defaults)) != now:
        other = ", ".join(sorted(name for name in now if made.get(name) != now[name]))
        raise SettingsError(
            f"The checkpoint at {url} was made with other settings of the model ({other}): "
            "set them back, or set PREMIERE_CHECKPOINTS to another folder to start anew."
        )


def _filled(made: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """With the defaults of settings that came later: until then the model did as they say."""
    return defaults | {
        name: _filled(value, defaults[name]) if isinstance(value, dict) and name in defaults else value
        for name, value in made.items()
    }
