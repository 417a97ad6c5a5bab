"""The demo's report: `report.json` for scripts, `report.html` for people. Both are self-contained.

Metrics are over the live part, all variants on the same events: the difference of the learner's totals at its end and
at its start. `counts.waiting` are produced events that were neither learned, nor dropped as duplicates, nor
dead-lettered; a complete run has none.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Final, NamedTuple

import numpy as np

from infra import charts
from infra.demo.sampler import Sample
from infra.demo.screen import LABELS
from infra.monitor.metric_totals import MetricTotals, mean_table, totals_since
from infra.monitor.scrape import Histogram
from infra.monitor.status import QUANTILES, RECORD_KINDS, quantiles_ms
from infra.output_files import output_errors
from infra.progress import format_duration
from model.metrics.beyond_accuracy import BEYOND_ACCURACY_METRICS, TOP_K
from model.metrics.ranking import NEW_TITLE_EVENTS

JSON: Final = "report.json"
FORMAT: Final = 2  # of report.json: fields may be added; a change of meaning gets a new number
HTML: Final = "report.html"
CURVE_WINDOW_EVENTS: Final = 2000  # scored events per point of the curve; fewer in a short run
SLICES: Final = {
    "all": "all events",
    "new_titles": "new titles (fewer than 10 events)",
    "unseen_titles": "unseen titles (no event yet)",
    "new_users": "new users (fewer than 5 events)",
}
_AT_10: Final = ("HR@10, all events", "NDCG@10, all events")
_KINDS: Final = {"event": "event to updated list", "launch": "launch to first list"}


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
    found = as_json(outcome)
    warning = "Users are simulated, because no dataset was found. The numbers do not show how well Premiere recommends."
    template = Template(Path(__file__).with_name("page.html").read_text())
    return template.substitute(
        data=escape(outcome.data),
        simulated=f'<p class="warning">{warning}</p>' if outcome.simulated else "",
        summary=summary(outcome),
        quality=_quality(found),
        served=_served(found),
        beyond_accuracy=_beyond_accuracy(outcome.beyond_accuracy),
        means=charts.mrr_curves(curves(outcome), LABELS),
        delays=_delays(found),
        latency=_latency(outcome),
        lag=_lag(outcome),
        counts=_counts(found),
        user_reports="".join(_user_report(user_report) for user_report in outcome.user_reports),
        settings="".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in outcome.settings.items()),
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
    histograms = {kind: outcome.latency(kind) for kind in RECORD_KINDS if outcome.latency(kind).count}
    if not histograms:
        return "<p>No latency was measured.</p>"
    return charts.latency_histogram(histograms, _KINDS)


def _lag(outcome: Outcome) -> str:
    seconds = [sample.seconds for sample in outcome.samples]
    names = dict.fromkeys(name for sample in outcome.samples for name in sample.lag)
    starts: dict[str, float] = {}
    for sample in outcome.samples:
        starts.setdefault(sample.phase, sample.seconds)
    lines = {name: (seconds, [float(sample.lag.get(name, 0)) for sample in outcome.samples]) for name in names}
    return charts.consumer_lag(lines, list(starts.items()))


def _quality(found: Mapping[str, Any]) -> str:
    """MRR by slice, HR@10 and NDCG@10 on all."""
    rows = []
    for name, label in LABELS.items():
        if name in found["mrr"]:
            means = [found["mrr"][name][s] for s in SLICES] + [found[m][name]["all"] for m in ("hr10", "ndcg10")]
            cells = "".join(f"<td>{'–' if mean is None else f'{mean:.4f}'}</td>" for mean in means)
            rows.append(f'<tr class="{name}"><th>{escape(label)}</th>{cells}</tr>')
    heads = "".join(f"<th>{escape(label)}</th>" for label in (*map("MRR, {}".format, SLICES.values()), *_AT_10))
    return f"<table><tr><th></th>{heads}</tr>{''.join(rows)}</table>"


def _served(found: Mapping[str, Any]) -> str:
    """How the served row differs from the prequential one."""
    live, late, settings = found["live_events"], found["not_waited"], found["settings"]
    return (
        f"The served row scores the list that was in Redis when the event arrived. A list has {settings['list_size']} "
        f"places, {settings['new_title_slots']} of them reserved for new titles; a title without a place counts 0 "
        "there, and 1/rank in the prequential row. A list is ranked by a model version that is some seconds old. "
        "The run is faster than real time: a user's next event was sent once the list after the previous one was in "
        f"Redis; {late:,} of {live:,} events were sent without it after two seconds."
    )


def _beyond_accuracy(beyond_accuracy: Mapping[str, float | None]) -> str:
    coverage, popularity_bias, new_title_share = (beyond_accuracy[measure] for measure in BEYOND_ACCURACY_METRICS)
    if coverage is None or popularity_bias is None or new_title_share is None:
        return ""
    return (
        f"The top {TOP_K} of the lists in Redis covered {coverage:.1%} of all titles; a listed title had "
        f"{popularity_bias:,.0f} events on average, and {new_title_share:.0%} of the lists contained a new title "
        f"(fewer than {NEW_TITLE_EVENTS} events)."
    )


def _delays(found: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><th>{escape(_KINDS[kind])}</th>"
        + "".join(f"<td>{'–' if ms is None else f'{ms:,.0f} ms'}</td>" for ms in quantiles.values())
        + "</tr>"
        for kind, quantiles in found["end_to_end_latency_ms"].items()
    ]
    return f"<table><tr><th></th><th>p50</th><th>p95</th><th>p99</th></tr>{''.join(rows)}</table>"


def _counts(found: Mapping[str, Any]) -> str:
    named = {name.replace("_", " "): count for name, count in found["counts"].items()}
    heads, cells = "".join(f"<th>{n}</th>" for n in named), "".join(f"<td>{c:,}</td>" for c in named.values())
    spent = ", ".join(f"{name} {format_duration(seconds)}" for name, seconds in found["phases"].items())
    return f"<table><tr>{heads}</tr><tr>{cells}</tr></table><p>Time by phase: {spent}.</p>"


def _user_report(user_report: UserReport) -> str:
    recent_titles = "".join(f"<li>{escape(name)}</li>" for name in user_report.recent_titles)
    new = ' <span class="new">launched live</span>'
    listed = "".join(f"<li>{escape(name)}{new if launched else ''}</li>" for name, launched in user_report.listed)
    return (
        f'<section class="user"><h3>User {escape(user_report.user)}, {user_report.events:,} events</h3>'
        f"<div><h4>recent titles, newest first</h4><ul>{recent_titles}</ul></div>"
        f"<div><h4>list in Redis</h4><ol>{listed}</ol></div></section>"
    )
