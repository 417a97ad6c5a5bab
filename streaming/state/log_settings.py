"""Settings of the learner on its log: micro-batches, load, checkpoints and the gate. Times are log time."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from model.metrics.drift import DriftSettings
from model.setting_fields import live, require_order
from model.setting_paths import FieldGroup


@dataclass(frozen=True)
class GateSettings:
    """When a version may be announced."""

    enabled: bool = live(True, "false: every version passes", follows="version_gate")
    window: int = live(500, "scored events that are compared with the baselines", 1, 1_000_000)
    min_events: int = live(100, "scored events from which that comparison counts", 1, 1_000_000)
    margin: float = live(0.1, "share of the compared MRR that a version may lose", 0, 1)
    standard_errors: float = live(3.0, "standard errors by which a loss must exceed the margin", 0, 100)
    # Half of the probes are ranked at each check, because ranking costs time.
    probes: int = live(50, "users whose lists are compared", 2, 10_000)
    min_probes: int = live(10, "probes from which a comparison counts", 1, 10_000)
    probe_checks: int = live(24, "checks after which new probes are taken", 1, 100_000)
    min_overlap: float = live(0.15, "least mean share of a list's titles that the passed version's list has too", 0, 1)
    min_coverage: float = live(
        0.2, "least number of distinct titles in all lists, relative to the last passed version", 0, 1
    )
    max_top_share: float = live(0.5, "share of the lists that may always begin with the same title", 0, 1)
    max_top_growth: float = live(
        3.0, "above that share: how many times it may be that of the last passed version", 1, 1000
    )
    failures: int = live(3, "failed checks in a row after which the learner returns to the last good version", 1, 1000)
    accept_ms: int = live(
        7_200_000, "after failing for this long, in ms of log time, the lower level is the norm", 0, 10**12
    )
    drift: DriftSettings = field(default_factory=DriftSettings)

    def __post_init__(self) -> None:
        require_order("gate", self, "min_events", "window")
        require_order("gate", self, "min_probes", "probes")


@dataclass(frozen=True)
class LogSettings:
    """When a micro-batch and a checkpoint are due, and how much the learner skips under load."""

    min_batch_events: int = live(64, "new events in a micro-batch at low rates", 1, 65_536)
    max_batch_events: int = live(512, "new events in a micro-batch at the highest rates", 1, 65_536)
    linger_ms: int = live(500, "a micro-batch closes after this many ms, even if it is not full", 0, 3_600_000)
    max_batch_records: int = live(512, "records in a micro-batch, including those without a new event", 1, 65_536)
    capacity: float = live(
        100.0, "events/s up to which experience replay is complete; above, it shrinks in proportion", 0.001, 1e9
    )
    min_replay_ratio: float = live(0.2, "least share of the experience replay that remains under load", 0, 1)
    full_eval_rate: float = live(
        100.0, "events/s up to which every event is ranked; above, a random sample of this rate is", 0.001, 1e9
    )
    checkpoint_ms: int = live(5_000, "time after which a checkpoint is due", follows="checkpoint_seconds")
    checkpoint_batches: int = live(
        60, "a checkpoint is due after this many micro-batches, or after checkpoint_seconds", 1, 1_000_000
    )
    dedup_window: int = live(
        65_536, "late events are accepted up to this many offsets behind the newest of their partition", 1, 100_000_000
    )
    gate: GateSettings = field(default_factory=GateSettings)

    def __post_init__(self) -> None:
        require_order("learner", self, "min_batch_events", "max_batch_events")

    def load_level(self, rate: float) -> "LoadLevel":
        """The load level at `rate` events/s. Low latency comes before replay and before ranking every event."""
        eval_ratio = min(1.0, self.full_eval_rate / max(rate, 1e-9))
        replay_ratio = min(1.0, max(self.min_replay_ratio, self.capacity / max(rate, 1e-9)))
        batch_events = min(round(self.min_batch_events / eval_ratio), self.max_batch_events)
        return LoadLevel(batch_events, replay_ratio, eval_ratio)

    def checkpoint_is_due(self, waited_ms: int, batches: int) -> bool:
        """Whether a checkpoint is due after this log time and this number of micro-batches since the last one."""
        return waited_ms >= self.checkpoint_ms or batches >= self.checkpoint_batches


LOG_GROUPS: Final = (  # of LogSettings
    FieldGroup("learner", LogSettings),
    FieldGroup("gate", GateSettings, ("gate",)),
    FieldGroup("drift", DriftSettings, ("gate", "drift")),
)


class LoadLevel(NamedTuple):
    """How much the learner does per event at the current rate."""

    batch_events: int  # new events in a micro-batch
    replay_ratio: float  # share of the usual experience replay
    eval_ratio: float  # share of the events that are ranked before they are learned
