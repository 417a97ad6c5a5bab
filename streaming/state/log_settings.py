"""Settings of the learner on its log, and how much it does per event under load."""

from dataclasses import dataclass, field
from typing import NamedTuple

from streaming.state.version_gate import GateSettings


@dataclass(frozen=True)
class LogSettings:
    """When a micro-batch and a checkpoint are due, and how much the learner skips under load. Times are log time."""

    min_batch_events: int = 64  # new events in a micro-batch at low rates
    max_batch_events: int = 512  # new events in a micro-batch at the highest rates
    linger_ms: int = 500  # longest wait until a micro-batch closes
    max_batch_records: int = 512  # records in a micro-batch, including those without a new event
    full_replay_rate: float = 100.0  # events/s up to which experience replay is complete; above, it shrinks
    min_replay_ratio: float = 0.2  # least share of the experience replay that remains
    full_eval_rate: float = 100.0  # events/s up to which every event is ranked; above, a random sample of this rate is
    checkpoint_ms: int = 5_000  # time after which a checkpoint is due
    checkpoint_batches: int = 60  # micro-batches after which a checkpoint is due
    dedup_window: int = 65_536  # offsets below a partition's highest within which a late event is new
    gate: GateSettings = field(default_factory=GateSettings)

    def load_level(self, rate: float) -> "LoadLevel":
        """The load level at `rate` events/s. Low latency comes before replay and before ranking every event."""
        eval_ratio = min(1.0, self.full_eval_rate / max(rate, 1e-9))
        replay_ratio = min(1.0, max(self.min_replay_ratio, self.full_replay_rate / max(rate, 1e-9)))
        batch_events = min(round(self.min_batch_events / eval_ratio), self.max_batch_events)
        return LoadLevel(batch_events, replay_ratio, eval_ratio)


class LoadLevel(NamedTuple):
    """How much the learner does per event at the current rate."""

    batch_events: int  # new events in a micro-batch
    replay_ratio: float  # share of the usual experience replay
    eval_ratio: float  # share of the events that are ranked before they are learned
