"""The demo's report: `report.json` for scripts, `report.html` for people. Both are self-contained.

Metrics are over the live part, all variants on the same events: the difference of the learner's totals at its end and
at its start. `counts.waiting` are produced events that were neither learned, nor dropped as duplicates, nor
dead-lettered; a complete run has none.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from infra import charts
from infra.demo.sampler import Sample
from infra.demo.screen import LABELS
from infra.monitor.metric_totals import MetricTotals, mean_table, totals_since
from infra.monitor.scrape import Histogram
from infra.monitor.status import QUANTILES, RECORD_KINDS, quantiles_ms
from infra.output_files import output_errors
from infra.progress import format_duration
from model.metrics.beyond_accuracy import TOP_K
from model.metrics.ranking import NEW_TITLE_EVENTS

JSON: Final = "report.json"
FORMAT: Final = 2  # of report.json: fields may be added; a change of meaning gets a new number
HTML: Final = "report.html"
TEMPLATE: Final = "page.html"
CURVE_WINDOW_EVENTS: Final = 2000  # scored events per point of the curve; fewer in a short run
SLICES: Final = {
    "all": "all events",
    "new_titles": "new titles (fewer than 10 events)",
    "unseen_titles": "unseen titles (no event yet)",
    "new_users": "new users (fewer than 5 events)",
}
_KINDS: Final = {"event": "event to updated list", "launch": "launch to first list"}


_FILTERS: Final[dict[str, Callable[..., str]]] = {  # of the template
    "thousands": "{:,.0f}".format,
    "decimals": lambda mean: "–" if mean is None else f"{mean:.4f}",
    "milliseconds": lambda ms: "–" if ms is None else f"{ms:,.0f} ms",
    "percent": lambda share, digits=0: f"{share:.{digits}%}",
}


class UserReport(NamedTuple):
    """A user at the end of the run: recent titles, newest first, and the list in Redis, best first."""

    user: str
    events: int  # of this user
    recent_titles: Sequence[str]
    listed: Sequence[tuple[str, bool]]  # name, whether it launched during the live part


@dataclass(frozen=True)
class Outcome:
    """Everything that the report needs. Counts are of events since the run began."""

    data: str
    simulated: bool
    seconds: float
    phases: Mapping[str, float]  # seconds by phase
    settings: Mapping[str, str]
    events: int  # to be produced
    produced: int
    learned: int
    duplicates: int
    dead_lettered: int
    samples: Sequence[Sample]
    live_start: Sample  # at the start of the live part
    user_reports: Sequence[UserReport]
    missing_events: Mapping[int, int]  # number of served lists by how many events of their user they lacked
    window: int  # live events within which users ran side by side
    not_waited: int  # live events that were sent without the list after the user's previous event
    beyond_accuracy: Mapping[
        str, float | None
    ]  # what the lists in Redis showed, live: `model.metrics.beyond_accuracy.BEYOND_ACCURACY_METRICS`

    @property
    def counts(self) -> dict[str, int]:
        """Produced events by outcome. `waiting` below 0 means that events were counted twice."""
        waiting = self.produced - self.learned - self.duplicates - self.dead_lettered
        own = {name: getattr(self, name) for name in ("produced", "learned", "duplicates", "dead_lettered")}
        return {**own, "waiting": waiting}

    @property
    def live(self) -> MetricTotals:
        """Metric totals of the live part."""
        return totals_since(self.samples[-1].totals, self.live_start.totals)

    def latency(self, kind: str) -> Histogram:
        """End-to-end latency in the live part."""
        return self.samples[-1].latency[kind] - self.live_start.latency[kind]


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The content of report.json: mrr, hr10 and ndcg10 by variant and slice, counts, end_to_end_latency_ms and more."""
    live = outcome.live
    return {
        "format": FORMAT,
        "data": outcome.data,
        "simulated": outcome.simulated,
        "events": outcome.events,
        "live_events": outcome.produced - outcome.live_start.produced,
        "scored": int(live["full"].scored[0]) if "full" in live else 0,
        "seconds": round(outcome.seconds, 1),
        "phases": {name: round(seconds, 1) for name, seconds in outcome.phases.items()},
        "counts": outcome.counts,
        "launches": outcome.samples[-1].launched,
        "versions": (outcome.samples[-1].version if outcome.samples[-1].version is not None else -1) + 1,
        "end_to_end_latency_ms": {kind: quantiles_ms(outcome.latency(kind)) for kind in RECORD_KINDS},
        "window": outcome.window,
        "not_waited": outcome.not_waited,
        "served_missing_events": {name: quantile(outcome.missing_events, q) for name, q in QUANTILES.items()},
        "lag": dict(outcome.samples[-1].lag),
        **mean_table(live),
        "beyond_accuracy": {measure: {"served": value} for measure, value in outcome.beyond_accuracy.items()},
        "settings": dict(outcome.settings),
    }


def quantile(counts: Mapping[int, int], q: float) -> int | None:
    """The q-quantile of integer values with counts; None without values."""
    wanted, so_far = q * sum(counts.values()), 0
    for value, count in sorted(counts.items()):
        so_far += count
        if so_far >= wanted:
            return value
    return None


def write(outcome: Outcome, folder: Path) -> tuple[Path, Path]:
    """Write report.json and report.html into `folder`. Raises OutputError."""
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JSON).write_text(json.dumps(as_json(outcome), indent=2) + "\n")
        (folder / HTML).write_text(page(outcome))
    return folder / JSON, folder / HTML


def page(outcome: Outcome) -> str:
    """The HTML page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": format_duration, **_FILTERS}
    return environment.get_template(TEMPLATE).render(
        data=outcome.data,
        found=as_json(outcome),
        summary=summary(outcome),
        lists=outcome.beyond_accuracy,
        top_k=TOP_K,
        new_title_events=NEW_TITLE_EVENTS,
        labels=LABELS,
        slices=SLICES,
        kinds=_KINDS,
        mrr_curves=Markup(charts.mrr_curves(curves(outcome), LABELS)),
        latency=Markup(_latency(outcome)),
        lag=Markup(_lag(outcome)),
        user_reports=outcome.user_reports,
    )


def summary(outcome: Outcome) -> str:
    """The outcome in a few sentences."""
    live, counts = outcome.produced - outcome.live_start.produced, outcome.counts
    words = [
        f"{outcome.produced:,} events and {outcome.samples[-1].launched:,} titles were produced in "
        f"{format_duration(outcome.seconds)} minutes; the last {live:,} events were live.",
        "Every event is accounted for."
        if counts["waiting"] == 0
        else f"{counts['waiting']:,} events are not accounted for.",
    ]
    if outcome.produced < outcome.events:
        words.append(f"The time limit ended the demo before the last {outcome.events - outcome.produced:,} events.")
    words.append(_against(mean_table(outcome.live)["mrr"]))
    return " ".join(words)


def _against(mrr: Mapping[str, Mapping[str, float | None]]) -> str:
    """MRR of the model and of the best baseline."""
    baselines = {n: m["all"] for n, m in mrr.items() if n not in ("full", "served") and m["all"] is not None}
    own = mrr.get("full", {}).get("all")
    if own is None or not baselines:
        return "No event was scored."
    name, best = max(baselines.items(), key=lambda item: item[1] or 0.0)
    served = mrr.get("served", {}).get("all")
    as_served = "" if served is None else f" and {served:.4f}{_share(served, own)} as served"
    return (
        f"The MRR of the model on them was {own:.4f} prequential{as_served}. "
        f"The best baseline ({LABELS[name]}) reached {best or 0.0:.4f}{_share(best or 0.0, own)}."
    )


def _share(mean: float, own: float) -> str:
    return f" ({mean / own:.0%} of that)" if own else ""


def curves(outcome: Outcome, window: int = CURVE_WINDOW_EVENTS) -> dict[str, charts.Line]:
    """MRR by variant over the live part: at each sample, over the previous `window` scored events."""
    live = [sample for sample in outcome.samples if sample.seconds >= outcome.live_start.seconds]
    lines: dict[str, charts.Line] = {}
    for name in (name for name in LABELS if name in outcome.live):
        scored = np.array(
            [totals_since(s.totals, outcome.live_start.totals)[name].scored[0] for s in live if name in s.totals]
        )
        total = np.array(
            [totals_since(s.totals, outcome.live_start.totals)[name].total[0, 0] for s in live if name in s.totals]
        )
        wide = min(window, max(1.0, scored[-1] / 8)) if len(scored) else 1.0
        early = np.maximum(scored.searchsorted(scored - wide, "right") - 1, 0)
        kept = scored - scored[early] >= 0.8 * wide
        mean = (total - total[early])[kept] / (scored - scored[early])[kept]
        lines[name] = scored[kept].tolist(), mean.tolist()
    return lines


def _latency(outcome: Outcome) -> str:
    """A figure; empty if no latency was measured."""
    histograms = {kind: outcome.latency(kind) for kind in RECORD_KINDS if outcome.latency(kind).count}
    return charts.latency_histogram(histograms, _KINDS) if histograms else ""


def _lag(outcome: Outcome) -> str:
    seconds = [sample.seconds for sample in outcome.samples]
    names = dict.fromkeys(name for sample in outcome.samples for name in sample.lag)
    starts: dict[str, float] = {}
    for sample in outcome.samples:
        starts.setdefault(sample.phase, sample.seconds)
    lines = {name: (seconds, [float(sample.lag.get(name, 0)) for sample in outcome.samples]) for name in names}
    return charts.consumer_lag(lines, list(starts.items()))
