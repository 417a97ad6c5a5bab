"""The learner over its log: micro-batches cut by the log itself, each event once, and the position that it stands for.

Everything here is a function of the records' content, order and record times, so that reading the log twice gives the
same weights bit for bit; what is pending when a checkpoint is due is not in it and will be read again. A request to
forget a user closes the micro-batch and takes effect at its place in the log, once, however often `features` writes it.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from prometheus_client import Counter

from model.learner import Learned, Learner, UserUpdate
from model.metrics.baselines import NAMES, Baselines
from model.metrics.ranking import Prequential
from model.state.stream_state import TitleMetadata
from streaming.kafka.source import Message
from streaming.records import Activity, Forgotten, LogRecord, Tick, Title, decode_log

RATE_MS: Final = 10_000  # of log time over which the event rate is measured
UNREADABLE: Final = Counter("premiere_log_unreadable", "records of the learner's log that could not be read")


@dataclass(frozen=True)
class LogSettings:
    """batch: new events a micro-batch · linger: ms of log time it waits for them · titles: records without a new event
    that close one · capacity: events/s of log time up to which replay is whole, beyond it shrinks to `least_replay` ·
    ranked: events/s up to which each is ranked; beyond it a fair sample of so many is, and micro-batches grow with the
    rate, up to `most_batch` · checkpoint: due after so many ms of log time or micro-batches · window: event identities
    kept a partition."""

    batch: int = 64
    most_batch: int = 512
    linger: int = 500
    titles: int = 512
    capacity: float = 100.0
    least_replay: float = 0.2
    ranked: float = 100.0
    checkpoint: int = 5_000
    checkpoint_batches: int = 60
    window: int = 65_536

    def pace(self, rate: float) -> "LoadLevel":
        """What is done at so many events/s: freshness comes before replay, and before knowing every rank."""
        ranked = min(1.0, self.ranked / max(rate, 1e-9))
        replay = min(1.0, max(self.least_replay, self.capacity / max(rate, 1e-9)))
        return LoadLevel(min(round(self.batch / ranked), self.most_batch), replay, ranked)


class LoadLevel(NamedTuple):
    """Events a micro-batch, share of the usual replay, share of the events that are ranked."""

    batch: int
    replay: float
    ranked: float


class Deduplicator:
    """Which events have been learned: the newest `window` offsets of each source partition."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.offsets: dict[int, dict[int, None]] = {}

    def first(self, partition: int, offset: int) -> bool:
        """Whether this event comes for the first time; from now on it does not."""
        seen = self.offsets.setdefault(partition, {})
        if offset in seen:
            return False
        seen[offset] = None
        if len(seen) > self.window:
            del seen[next(iter(seen))]
        return True

    def state_dict(self) -> dict[str, Any]:
        return {str(partition): np.array(list(seen), np.int64) for partition, seen in self.offsets.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.offsets = {int(partition): dict.fromkeys(seen.tolist()) for partition, seen in state.items()}


class LogLearner:
    """`position`: the next offset that is not in the learner's state · `batches`: micro-batches so far ·
    `learned`, `duplicates`, `unlaunched`: events."""

    def __init__(self, learner: Learner, settings: LogSettings) -> None:
        self.learner, self.settings = learner, settings
        self.baselines = Baselines(repeats=learner.settings.repeats)
        self.rankings = {name: Prequential() for name in ("full", *NAMES)}
        self.once = Deduplicator(settings.window)
        self.position, self.learned, self.duplicates, self.unlaunched, self.batches = 0, 0, 0, 0, 0
        self.rates: deque[tuple[int, int]] = deque()  # (record time, new events)
        self.batch, self.replay, self.ranked = settings.pace(0)
        self.losses: dict[str, float] = {}
        self._pending: list[tuple[Title | Activity, int]] = []  # records and their record times
        self._new, self._opened, self._next = 0, 0, 0
        self._saved_at, self._since = 0, 0  # log time of the last checkpoint, micro-batches since
        self._fresh = False  # whether anything was learned since

    def feed(self, message: Message) -> bool:
        """Take the next record of the log. True where a checkpoint is due: the state stands for `position` then."""
        if self._pending and message.appended - self._opened >= self.settings.linger:
            self._close()
        self._next = message.offset + 1
        try:
            record: LogRecord = decode_log(message.value or b"")
        except msgspec.MsgspecError:
            UNREADABLE.inc()  # only our own flows write here: one bad record must not stop the learner for good
            return False
        if isinstance(record, Forgotten):
            self._forget(record)
        elif not isinstance(record, Tick):
            if not self._pending:
                self._opened = message.appended
            self._pending.append((record, message.appended))
            self._new += len(record.new) if isinstance(record, Activity) else 0
        if self._new >= self.batch or len(self._pending) >= self.settings.titles:
            self._close()
        elif not self._pending:
            self.position = self._next
        return self._due(message.appended)

    @property
    def unsaved(self) -> bool:
        """Whether anything came since the last checkpoint was due that a restart would have to read again."""
        return self._fresh or bool(self._pending)

    def skip_to(self, first: int) -> int:
        """Go on where the log begins now, if that lies ahead: how many records are gone unlearned."""
        gone = max(0, first - self.position)
        self.position += gone
        self._next = self.position
        return gone

    def rate(self) -> float:
        """New events a second of log time, lately."""
        span = max(self.rates[-1][0] - self.rates[0][0], 1_000) if self.rates else 1_000
        return 1000 * sum(n for _, n in self.rates) / span

    def state_dict(self) -> dict[str, Any]:
        """The checkpoint's parts; what is pending is not in it."""
        log = {
            "once": self.once.state_dict(),
            "baselines": self.baselines.state_dict(),
            "rankings": {name: ranking.state_dict() for name, ranking in self.rankings.items()},
            "counts": [self.position, self.learned, self.duplicates, self.unlaunched],
            "batches": self.batches,
            "rates": [list(pair) for pair in self.rates],
            "replay": self.replay,
            "batch": self.batch,
        }
        return {**self.learner.state_dict(), "log": log}

    def load_state_dict(self, state: Mapping[str, Any], same_log: bool = True) -> None:
        """Go on from a checkpoint. On another log the weights go on, while position and identities begin anew."""
        self.learner.load_state_dict({part: state[part] for part in ("stream_state", "served", "training")})
        log = state["log"]
        self.batches = log["batches"]  # it names checkpoints, so it runs on from log to log
        self.baselines.load_state_dict(log["baselines"])
        for name, ranking in self.rankings.items():
            ranking.load_state_dict(log["rankings"][name])
        if same_log:
            self.once.load_state_dict(log["once"])
            self.position, self.learned, self.duplicates, self.unlaunched = log["counts"]
            self.rates = deque((at, n) for at, n in log["rates"])
            self.replay, self.batch = log["replay"], log["batch"]
            self._next = self.position

    def _forget(self, asked: Forgotten) -> None:
        if self._pending:
            self._close()
        if self.once.first(asked.partition, asked.offset):
            self.learner.erase_user(asked.user)
            self.baselines.erase_user(asked.user)
            self._fresh = True

    def _item(self, record: Title | Activity, appended: int) -> TitleMetadata | UserUpdate | None:
        if isinstance(record, Activity):
            return self._user_update(record, appended)
        (self.baselines.withdraw if record.withdrawn else self.baselines.launch)(record.title)
        return title_metadata(record)

    def _user_update(self, record: Activity, appended: int) -> UserUpdate | None:
        """The activity with those of its new events that have not been learned; None where none is left."""
        fresh = [event for event in record.new if self.once.first(event.partition, event.offset)]
        self.duplicates += len(record.new) - len(fresh)
        if not fresh:
            return None
        self.learned += len(fresh)
        self.rates.append((appended, len(fresh)))
        while appended - self.rates[0][0] > RATE_MS:
            self.rates.popleft()
        new = sorted(event.index for event in fresh)
        return UserUpdate(record.user, record.titles, record.times, record.actions, new, [record.times[i] for i in new])

    def _close(self) -> None:
        """Learn what is pending; only here does anything of it enter the state."""
        items = [item for record, at in self._pending if (item := self._item(record, at)) is not None]
        self.batch, self.replay, self.ranked = self.settings.pace(self.rate())
        result = self.learner.observe(items, self.replay, self.ranked)
        self._score(result)
        self._fresh = self._fresh or bool(items)
        self._pending, self._new = [], 0
        self.position = self._next
        self.batches += 1
        self._since += 1

    def _score(self, result: Learned) -> None:
        for event in result.ranked:
            # An event of a title that the viewer has seen is no target: it is left out of every list.
            if event.ranks and not self.baselines.has_seen(event.user, event.title):
                ranks = self.baselines.rank(event.user, event.title, event.ts) | {"full": event.ranks["full"]}
                self.unlaunched += ranks["full"] == float("inf")
                for name, ranking in self.rankings.items():
                    ranking.add(ranks[name], event.title_events, event.user_events)
            self.baselines.count(event.user, event.title, event.ts)
        self.losses |= result.losses.get("full", {})

    def _due(self, appended: int) -> bool:
        if not self._saved_at:
            self._saved_at = appended
        waited = (
            appended - self._saved_at >= self.settings.checkpoint or self._since >= self.settings.checkpoint_batches
        )
        if not (waited and self._fresh and self.learned):  # a model that has seen nobody is no version
            return False
        self._saved_at, self._since, self._fresh = appended, 0, False
        return True


def title_metadata(title: Title) -> TitleMetadata:
    """A title as the model takes it."""
    semantic = np.frombuffer(title.semantic, np.float32)
    return TitleMetadata(title.title, semantic, title.genres, title.year, title.released, title.withdrawn)
