"""Trains the learner on the learner log: cuts micro-batches, drops duplicates, and tracks the position of the state.

The state is a function of the records' content, order and record times, so reading the log twice gives the same weights
bit for bit. A checkpoint leaves out the pending micro-batch, which is read again after a restart. A request to erase a
user takes effect at the end of its micro-batch, once, even if `features` writes it several times. It closes no
micro-batch, so that many requests do not cut the training into small steps. Only a later activity of the user does.

A `TextSpace` closes the micro-batch. If its encoder is not the one before, the text part of the model starts again.

Whenever a checkpoint is due, the gate checks the state. If it demands so, the caller loads an earlier state with
`return_to` and feeds the log again from there; the learner does not train on the range that failed.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from prometheus_client import Counter

from model.learner import BatchResult, Learner
from model.seed import keep_weights_only
from model.settings import LearnerSettings
from model.state.embedding_space import EmbeddingSpace
from model.state.stream_state import TitleMetadata, UserUpdate
from streaming.kafka.source import Message
from streaming.records import (
    DECODE_ERRORS,
    Activity,
    SettingsChange,
    SkippedRange,
    TextSpace,
    Tick,
    Title,
    UserErasure,
    decode_log,
)
from streaming.state.deduplicator import Deduplicator
from streaming.state.event_rate import EventRate
from streaming.state.live_evaluation import LiveEvaluation
from streaming.state.log_clock import LogClock, recorded_until
from streaming.state.log_settings import LogSettings
from streaming.state.open_batch import OpenBatch
from streaming.state.settings_history import extended
from streaming.state.title_metadata import counted_metadata
from streaming.state.user_update import user_update
from streaming.state.version_gate import GoodPoint, Verdict, VersionGate

MAX_SKIPPED_RANGES: Final = 16  # that are remembered; the oldest is dropped
log: Final = logging.getLogger(__name__)

UNDECODABLE_RECORDS: Final = Counter(
    "premiere_log_unreadable_total", "Records of the learner log that are invalid and were skipped."
)


class LogLearner:
    """A learner and its prequential evaluation, fed with the records of one log in order."""

    def __init__(self, learner: Learner, settings: LogSettings) -> None:
        self.learner, self.settings = learner, settings
        self.evaluation = LiveEvaluation(learner.settings.repeats)
        self.gate = VersionGate(learner, self.evaluation.rankings, settings.gate)
        self.verdict = Verdict()  # of the last check
        self.deduplicator = Deduplicator(settings.dedup_window)
        self.position = 0  # next log offset that is not in the state
        self.clock = LogClock()  # log time at `position`
        self.batches = 0  # micro-batches so far
        self.learned, self.duplicates = 0, 0  # events so far
        self.event_rate = EventRate()
        self.batch_events, self.replay_ratio, self.eval_ratio = settings.load_level(0)
        self.losses: dict[str, float] = {}  # nats, of the last micro-batch
        self._pending, self.next_offset = OpenBatch(), 0  # the next offset to feed
        self.settings_changes = extended([], 0, None, learner.settings, settings)
        self.skipped: list[SkippedRange] = []  # ranges of the log without training, oldest first
        self._range: SkippedRange | None = None  # the one that is being read
        self._read_clock = self.clock  # log time at `_next_offset`
        self.checked_at: int | None = None  # log time of the last check, at which a checkpoint is written
        self._batches_since_checkpoint, self._changed = 0, False  # whether anything was learned since a checkpoint

    def feed(self, message: Message) -> bool:
        """Take the log's next record. Returns True if a checkpoint is due; the state then ends at `position`.

        `verdict` then tells whether the state may be announced.
        """
        self._enter_range(message.offset)
        is_due = self._feed(message)
        self._leave_range()
        return is_due

    def _feed(self, message: Message) -> bool:
        try:
            record = decode_log(message.value or b"")
        except DECODE_ERRORS:
            UNDECODABLE_RECORDS.inc()  # only our own flows write here: one bad record must not stop the learner
            self.next_offset = message.offset + 1
            return False
        clock = self._read_clock.after(record, message.appended)
        if isinstance(record, Activity):
            record = recorded_until(record, message.appended)
        is_over = clock.now - self._pending.opened_at >= self.settings.linger_ms
        follows_erasure = isinstance(record, Activity) and record.user in self._pending.erased_users
        if self._pending and (is_over or follows_erasure or isinstance(record, TextSpace)):
            self._close_batch()
        self.next_offset, self._read_clock = message.offset + 1, clock
        if isinstance(record, TextSpace):
            self._set_text_space(EmbeddingSpace(record.encoder, record.width))
        elif not isinstance(record, Tick):
            self._pending.add(record, clock.now)
        if self._pending.new_events >= self.batch_events or len(self._pending) >= self.settings.max_batch_records:
            self._close_batch()
        elif not self._pending:
            self.position, self.clock = self.next_offset, self._read_clock
        return self._checkpoint_due(clock.now)

    @property
    def has_unsaved_records(self) -> bool:
        """Whether a restart from the last checkpoint would have to read records again."""
        return self._changed or bool(self._pending)

    def skip_to(self, first_offset: int) -> int:
        """Continue where the log begins now, if that is ahead; returns the number of records lost."""
        lost = max(0, first_offset - self.position)
        self.position += lost
        self.next_offset = self.position
        return lost

    def return_to(self, state: Mapping[str, Any]) -> SkippedRange:
        """Load an earlier state of this log; what was learned since then is undone.

        Feed the log again from `position`. Training continues behind the range that is returned.
        """
        end, step, outcome = self.position, self.batches, self.gate.outcome()
        checked_at = self.checked_at
        assert checked_at is not None, "only a failed check demands a return"
        vars(self).update(vars(restarted(state, self.learner.settings, self.settings)))
        range_ = SkippedRange(start=self.position, end=end, step=step, checkpoint_at=checked_at, gate=outcome)
        self.skip([*self.skipped, range_])
        return range_

    def skip(self, ranges: Sequence[SkippedRange]) -> None:
        """Set the ranges of the log that are read without training."""
        self.skipped = list(ranges)[-MAX_SKIPPED_RANGES:]

    def state_dict(self) -> dict[str, Any]:
        """The parts of a checkpoint, without the open micro-batch."""
        log = {
            "deduplicator": self.deduplicator.state_dict(),
            "evaluation": self.evaluation.state_dict(),
            "counts": [self.position, self.learned, self.duplicates],
            "batches": self.batches,
            "clock": list(self.clock),
            "recent_events": self.event_rate.state(),
            "replay_ratio": self.replay_ratio,
            "batch_events": self.batch_events,
            "checkpoint_due": [self.checked_at, self._batches_since_checkpoint, self._changed],
            "gate": self.gate.state_dict(),
            "skipped": msgspec.to_builtins(self.skipped),
            "settings_changes": msgspec.to_builtins(self.settings_changes),
        }
        return {**self.learner.state_dict(), "log": log}

    def load_state_dict(self, state: Mapping[str, Any], same_log: bool = True) -> None:
        """Continue from a checkpoint. On another log, only the weights continue."""
        self.learner.load_state_dict({part: state[part] for part in ("stream_state", "served", "training")})
        log = state["log"]
        self._pending, self._range = OpenBatch(), None
        self.batches = log["batches"]  # names the checkpoints, so it continues on another log
        if not same_log:
            keep_weights_only(self.learner)
        else:
            self.evaluation.load_state_dict(log["evaluation"])
            self.deduplicator.load_state_dict(log["deduplicator"])
            self.position, self.learned, self.duplicates = log["counts"]
            self.event_rate = EventRate(log["recent_events"])
            self.replay_ratio, self.batch_events = log["replay_ratio"], log["batch_events"]
            self.clock = self._read_clock = LogClock.restored(log["clock"])
            self.next_offset = self.position
            self.checked_at, self._batches_since_checkpoint, self._changed = log["checkpoint_due"]
            self.gate.load_state_dict(log["gate"])
            self.skipped = msgspec.convert(log["skipped"], list[SkippedRange])
            changes = msgspec.convert(log["settings_changes"], list[SettingsChange])
            current = self.learner.settings, self.settings
            self.settings_changes = extended(changes, self.position, self.checked_at, *current)

    def _enter_range(self, offset: int) -> None:
        """Close the micro-batch where a range without training begins."""
        if self._range is None:
            range_ = next((one for one in self.skipped if one.start <= offset < one.end), None)
            if range_ is not None and self._pending:
                self._close_batch()
            self._range = range_

    def _leave_range(self) -> None:
        """Close the micro-batch where a range without training ends. The next checkpoint has a step of its own."""
        range_ = self._range
        if range_ is None or self.next_offset < range_.end:
            return
        if self._pending:
            self._close_batch()
        self.batches = max(self.batches, range_.step) + 1
        self.checked_at, self._batches_since_checkpoint, self._changed = range_.checkpoint_at, 0, True
        self.gate.returned(range_.gate)
        self._range = None

    def _set_text_space(self, space: EmbeddingSpace) -> None:
        if not self.learner.stream_state.text_space.contains(*space):
            log.info(
                "Titles are embedded by %s (width %d) from now on: the text part of the model starts again.", *space
            )
            self.learner.restart_text(space)
            self.gate.restart()
        self.learner.stream_state.text_space, self._changed = space, True

    def _erase_user(self, erasure: UserErasure) -> None:
        if self.deduplicator.is_new(erasure.partition, erasure.offset, erasure.source):
            self.learner.erase_user(erasure.user)
            self.evaluation.baselines.erase_user(erasure.user)
            self.gate.erase_user(erasure.user)
            self._changed = True

    def _close_batch(self) -> None:
        """Learn the pending records, then erase users. The state changes only here and behind a skipped range."""
        batch = [item for record, now in self._pending.records if (item := self._model_input(record, now)) is not None]
        self.batch_events, self.replay_ratio, self.eval_ratio = self.settings.load_level(self.event_rate.per_second())
        result = self.learner.observe(batch, self.replay_ratio, self.eval_ratio, trains=self._range is None)
        self._update_candidates(batch)
        self._evaluate(result)
        if self._range is None:
            self.gate.add_updates([item for item in batch if isinstance(item, UserUpdate)])
        self._changed = self._changed or bool(batch)
        for record, _ in self._pending.records:
            if isinstance(record, UserErasure):
                self._erase_user(record)
        self._pending = OpenBatch()
        self.position, self.clock = self.next_offset, self._read_clock
        self.batches += 1
        self._batches_since_checkpoint += 1

    def _model_input(self, record: Title | Activity | UserErasure, now: int) -> TitleMetadata | UserUpdate | None:
        if isinstance(record, Activity):
            return self._user_update(record, now)
        return counted_metadata(record, self.learner.stream_state.text_space) if isinstance(record, Title) else None

    def _user_update(self, record: Activity, now: int) -> UserUpdate | None:
        """The activity without its duplicate events; None if all of them are duplicates."""
        is_new, source = self.deduplicator.is_new, record.source
        fresh = [event for event in record.new if is_new(event.partition, event.offset, source)]
        self.duplicates += len(record.new) - len(fresh)
        if not fresh:
            return None
        self.learned += len(fresh)
        self.event_rate.add(now, len(fresh))
        return user_update(record, fresh)

    def _update_candidates(self, batch: Sequence[TitleMetadata | UserUpdate]) -> None:
        """Give the baselines the candidates of the learner, which skips repeated title records."""
        catalog = self.learner.stream_state.catalog
        for title in (item.title for item in batch if isinstance(item, TitleMetadata)):
            row = catalog.rows.get(title)
            self.evaluation.set_candidate(title, row is not None and bool(catalog.candidate_V[row]))

    def _evaluate(self, result: BatchResult) -> None:
        for event in result.ranked:
            rank = self.evaluation.add(event)
            if rank is not None:
                self.gate.add_rank(rank)
        self.losses |= result.losses.get("full", {})

    def _checkpoint_due(self, now: int) -> bool:
        """Whether a checkpoint is due; then checks the state. Both are a function of the log."""
        if self._range is not None:
            return False
        if self.checked_at is None:
            self.checked_at = now
        waited = self.settings.checkpoint_is_due(now - self.checked_at, self._batches_since_checkpoint)
        if not (waited and self._changed and self.learned):  # a model without any event is not published
            return False
        self.checked_at, self._batches_since_checkpoint, self._changed = now, 0, False
        self.verdict = self.gate.check(GoodPoint(self.position, self.batches), self.clock.now)
        return True


def restarted(state: Mapping[str, Any], model: LearnerSettings, settings: LogSettings) -> LogLearner:
    """A new learner that continues from a state, as after a restart; loading into a used one would leave later rows."""
    fresh = LogLearner(Learner(model), settings)
    fresh.load_state_dict(state)
    return fresh
