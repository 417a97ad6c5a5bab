"""The learner from the settings: the flow `learn`, and what a server must know to read its versions."""

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from infra.errors import SettingsError
from infra.flow import Flow
from infra.settings import Settings
from infra.topics import identity
from streaming import topics as t
from streaming.kafka import KafkaSource, read_all
from streaming.kafka_sink import KafkaSink

if TYPE_CHECKING:
    from model.learner import LearnerSettings

POLL: Final = 8  # records, of up to a hundred events each: a poll is learned before the next signal is heard


def learner_settings(settings: Settings) -> "LearnerSettings":
    """What the settings say of the model."""
    from model.learner import LearnerSettings
    from model.memory import MemorySettings
    from model.network import NetworkSettings
    from model.objective import ObjectiveSettings
    from model.sequence import SequenceSettings

    windows = tuple(1 if horizon == 0 else max(5, horizon) for horizon in settings.horizons)
    sequence = SequenceSettings(NetworkSettings(horizons=settings.horizons), ObjectiveSettings(windows=windows))
    memory = MemorySettings(most_titles=settings.max_titles)
    return LearnerSettings(memory, sequence, repeats=not settings.filter_seen, seed=settings.seed)


def numerics(threads: int) -> None:
    """How this process multiplies matrices: with its own threads only, since several flows share the machine.

    `medium` lets torch choose oneDNN on a CPU: measured here, products 1.5 to 2.5 times faster at the same error.
    """
    import torch

    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("medium")


def learn(settings: Settings, stop: threading.Event) -> Flow:
    """From the newest whole checkpoint on, or from the log's beginning where there is none."""
    from model.learner import Learner
    from streaming.checkpoints import Checkpoints, version
    from streaming.learn import build
    from streaming.log_learner import LogLearner, LogSettings
    from streaming.records import decode_version

    numerics(settings.threads)
    config = settings.kafka()
    log = identity(config, [t.ACTIVITY])
    checkpoints = Checkpoints(settings.checkpoints_url(), settings.keep_checkpoints, log)
    logs = LogSettings(checkpoint=round(settings.checkpoint_seconds * 1000))
    learner = LogLearner(Learner(learner_settings(settings)), logs)
    unannounced = None
    found = checkpoints.newest()
    if found is not None:
        state, manifest, url = found
        _check(manifest, learner.learner.settings, url)
        same_log = manifest["log"] == log
        learner.load_state_dict(state, same_log)
        manifest = manifest if same_log else {**manifest, "position": 0, "learned": 0}
        announced = {decode_version(message.value or b"").path for message in read_all(config, t.MODEL_VERSIONS)}
        unannounced = None if url in announced else version(url, manifest)
    durable = {0: learner.position} if learner.position else {}
    source = KafkaSource(
        config, t.ACTIVITY, "learn", start={0: learner.position} if learner.position else "earliest",
        batch=POLL, durable=durable, stop=stop,
    )  # fmt: skip
    dataflow = build(
        activity=source,
        versions=KafkaSink(config, stop=stop),
        learner=learner,
        checkpoints=checkpoints,
        durable=durable,
        unannounced=unannounced,
    )
    return Flow(dataflow, [source])


def _check(manifest: Mapping[str, Any], settings: "LearnerSettings", url: str) -> None:
    """Raises SettingsError where the checkpoint's model is another one."""
    now = json.loads(json.dumps(asdict(settings)))
    if (made := manifest.get("settings", now)) != now:
        other = ", ".join(sorted(name for name in now if made.get(name) != now[name]))
        raise SettingsError(
            f"The checkpoint at {url} was made with other settings of the model ({other}): "
            "set them back, or set PREMIERE_CHECKPOINTS to another folder to start anew."
        )
