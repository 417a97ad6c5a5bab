"""The report of a run with baselines: MRR, the best baseline, paired differences, and curves.

Recent popularity is reported for each of its windows. The best window on all events is named: it is the strongest form
of this baseline on the stream, chosen in hindsight. Curves show the best window only.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from infra.experiments.backbone_ranks import backbone_only
from infra.experiments.harness import ScoredEvents
from model.metrics.baselines import BASELINES, RECENT_WINDOWS

WINDOW_LABELS: Final = {
    "popularity_1h": "hour", "popularity_1d": "day", "popularity_7d": "7 days", "popularity_30d": "30 days",
}  # fmt: skip

MrrBySlice = Mapping[str, Mapping[str, float | None]]  # variant -> slice -> MRR


def best_of(names: Sequence[str], mrr: MrrBySlice) -> str:
    """The variant with the highest MRR on all events; of equals the first."""
    return max(names, key=lambda name: mrr[name]["all"] or 0.0)


def best_recent_window(mrr: MrrBySlice) -> str:
    """The best window of recent popularity, by its variant's name."""
    return best_of(list(RECENT_WINDOWS), mrr)


def describe_window(best_window: str) -> str:
    """The best window as a sentence."""
    return f"Recent popularity is best over the last {WINDOW_LABELS[best_window]} (`{best_window}`), on all events."


def with_baselines(recorded: ScoredEvents) -> dict[str, Any]:
    """MRR by variant and slice, the best window of recent popularity, and the curves."""
    mrr = {name: recorded.mrr(name) for name in recorded.ranks}
    best_window = best_recent_window(mrr)
    shown = [name for name in recorded.ranks if name not in RECENT_WINDOWS or name == best_window]
    return {"mrr": mrr, "best_recent_window": best_window, "curve": recorded.curve(shown)}


def against_baselines(recorded: ScoredEvents, references: Sequence[str]) -> dict[str, Any]:
    """`with_baselines`, the best baseline, the gains of `full` over it and over the `references`, and the gain of its
    backbone-only order over it."""
    report = with_baselines(recorded)
    best = best_of(BASELINES, report["mrr"])
    pairs = [*(("full", reference) for reference in (*references, best)), (backbone_only("full"), best)]
    gains = [{"variant": a, "reference": b, "gain": recorded.gain(a, b)} for a, b in pairs]
    return {**report, "best": best, "gains": gains}
