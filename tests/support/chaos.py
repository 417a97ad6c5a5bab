"""The whole loop run twice over the same audience, once undisturbed, and what differs at the end is counted.

Keyed so that two runs compare whatever their batches were; what depends on when Kafka took a record is left out.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from features.store import offline_folder, open_store
from infra.data.datasets import DataSet
from infra.data.producer import DatasetProducer, ProduceRate
from infra.local.processes import tail
from infra.local.session import Session, running
from infra.local.supervisor import Restarts
from infra.monitor.metrics_server import free_base
from infra.monitor.status import look
from infra.run.learn import learner_settings, numerics
from infra.settings import Settings
from model import checkpoint
from model.learner import Learner
from streaming.kafka.source import read_all
from streaming.state.log_learner import LogLearner, LogSettings
from streaming.stores.redis_lists import key
from streaming.topics import ACTIVITY

PATIENCE: Final = 300.0  # seconds without progress after which a run has failed
RESTARTS: Final = Restarts(most=1000, first=0.1, longest=1.0)
FEATURES: Final = [f"user_activity:{name}" for name in ("event_count", "last_title", "recent_titles", "recent_ms")]
HOLD: Final = 400  # events in flight where nothing is killed

Say = Callable[[str], object]
Disturb = Callable[[Session, DatasetProducer, int, Say], None]  # plays on until that event, and does harm on the way


@dataclass(frozen=True)
class Found:
    """What a run left behind. Keyed so that two runs can be compared whatever their batches were."""

    rows: list[tuple[Any, ...]]  # of the offline log; the time of the Kafka record left out
    features: dict[str, tuple[Any, ...]]  # user -> what Feast has online
    served: dict[str, tuple[Any, ...]]  # user -> events and source offset that the lists in Redis know
    learned: int
    repeated: int  # events that came twice through the log and were passed over
    weights: dict[str, bool]  # checkpoint file -> whether it equals a fresh learner's


@dataclass(frozen=True)
class Counts:
    """Of one kind of thing: how many there must be, and what is wrong."""

    wanted: int
    lost: int
    doubled: int
    differing: int

    @property
    def clean(self) -> bool:
        """Nothing wrong."""
        return not (self.lost or self.doubled or self.differing)


def run(settings: Settings, data: DataSet, disturb: Disturb | None, say: Say) -> Found:
    """The data set through a loop of its own, disturbed or not, until everything is learned and served."""
    with running(settings, RESTARTS) as loop:
        with DatasetProducer(data, loop.settings.kafka(), ahead=len(data)) as replay:
            if disturb is None:
                replay.play(pace=ProduceRate(in_flight=lambda: replay.events - _learned(loop), limit=HOLD))
            else:
                disturb(loop, replay, len(data), say)
        settle(loop, len(data), say)
        loop.flows.stop()
        return _found(loop, data, say)


def _learned(loop: Session) -> int:
    loop.flows.check()
    return look(loop.settings, loop.lags).learned


def settle(loop: Session, events: int, say: Say) -> None:
    """Wait until every event is learned, in a checkpoint, and in its viewer's lists."""
    best, since = -1, time.monotonic()
    while True:
        learned = _learned(loop)
        served = sum(int(loop.redis.hget(name, "events") or 0) for name in loop.redis.scan_iter(key("*"), 1000))
        saved = max((checkpoint.read_manifest(url)["learned"] for url in _checkpoints(loop)), default=0)
        if min(learned, served, saved) >= events:
            break
        if (now := learned + served + saved) > best:
            best, since = now, time.monotonic()
        assert time.monotonic() - since < PATIENCE, (
            f"of {events}: learned {learned}, served {served}, saved {saved}; the logs end with:\n{_logs(loop)}"
        )
        say(f"settling: of {events:,} events {learned:,} learned, {served:,} served, {saved:,} in a checkpoint")
        time.sleep(1)
    time.sleep(3)  # more than an epoch: what was written becomes durable, and would be doubled by now


def _logs(loop: Session) -> str:
    return "\n\n".join(f"{log.name}\n{tail(log)}" for log in sorted((loop.settings.data_dir / "logs").glob("*.log")))


def _checkpoints(loop: Session) -> list[str]:
    return checkpoint.present(loop.settings.checkpoints_url())


def _found(loop: Session, data: DataSet, say: Say) -> Found:
    folder = loop.settings.data_dir.resolve() / "feast"
    table = pq.read_table(offline_folder(folder, "user_activity"))
    rows = [tuple(map(_plain, row.values())) for row in table.drop_columns(["created"]).to_pylist()]
    store = open_store(loop.settings.redis(), folder)
    online = store.get_online_features(FEATURES, [{"user_id": user} for user in data.users]).to_dict()
    features = {user: tuple(_plain(online[name][k]) for name in sorted(online)) for k, user in enumerate(data.users)}
    features = {user: known for user, known in features.items() if None not in known}
    served = {}
    for user in data.users:
        events, revision = loop.redis.hmget(key(user), "events", "revision")
        if events is not None:
            served[user] = (events, revision.split(".")[0])
    manifest = checkpoint.read_manifest(_checkpoints(loop)[-1])
    say("a fresh learner reads the log that this run left")
    weights, repeated = _weights(loop, manifest)
    return Found(rows, features, served, manifest["learned"], repeated, weights)


def _weights(loop: Session, manifest: dict[str, Any]) -> tuple[dict[str, bool], int]:
    """Whether a learner that was never disturbed, on the same log, has the same checkpoint, file by file."""
    numerics(loop.settings.threads)
    logs = LogSettings(checkpoint=round(loop.settings.checkpoint_seconds * 1000))
    fresh = LogLearner(Learner(learner_settings(loop.settings)), logs)
    for message in read_all(loop.settings.kafka(), ACTIVITY):
        fresh.feed(message)
        if (fresh.batches, fresh.position) >= (manifest["step"], manifest["position"]):
            break
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(f"{folder}/fresh", fresh.state_dict(), {})
        sums = checkpoint.read_manifest(f"{folder}/fresh")["files"]
    return {name: sums.get(name) == said for name, said in manifest["files"].items()}, fresh.duplicates


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def compare(want: Found, got: Found) -> dict[str, Counts]:
    """What the disturbed run lost, doubled or has otherwise, by kind."""
    rows, wanted = set(got.rows), set(want.rows)
    same_place = len({_place(row) for row in got.rows} & {_place(row) for row in want.rows})
    weights = [name for name, same in got.weights.items() if not same]
    return {
        "offline rows": Counts(
            len(wanted),
            len(wanted) - same_place,
            len(got.rows) - len({_place(row) for row in got.rows}),
            same_place - len(rows & wanted),
        ),
        "histories in Feast": _differing(want.features, got.features),
        "histories in Redis": _differing(want.served, got.served),
        "events learned": Counts(
            want.learned, max(0, want.learned - got.learned), max(0, got.learned - want.learned), 0
        ),
        "checkpoint files": Counts(len(got.weights), 0, 0, len(weights)),
    }


def _place(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Partition and offset: the last two columns."""
    return row[-2:]


def _differing(want: dict[str, Any], got: dict[str, Any]) -> Counts:
    both = want.keys() & got.keys()
    return Counts(len(want), len(want.keys() - both), len(got.keys() - both), sum(want[k] != got[k] for k in both))


def settings(folder: Path, **given: Any) -> Settings:
    """Of a stack of its own in `folder`."""
    port = free_base(Settings(metrics_port=27_000))
    return Settings(data_dir=folder, metrics_port=port, **{"bootstrap_servers": "", "redis_url": "", **given})
