"""What a demo leaves behind: `report.json` for scripts, `report.html` for people. Both stand alone.

Numbers are over the live part, each ranking on the same events: differences of what the learner counted at its two
ends. An event counts as waiting when nobody says what became of it; a run is whole when none is.
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
from infra.demo.screen import LABELS, clock
from infra.monitor.metric_totals import Tally, since, table
from infra.monitor.scrape import Histogram
from infra.monitor.status import KINDS, QUANTILES, milliseconds
from model.metrics.beyond_accuracy import SHOWN, TOP
from model.metrics.ranking import NEW_TITLE

JSON: Final = "report.json"
FORMAT: Final = 1  # of report.json: fields may be added to it; a change of what one means is a new number
HTML: Final = "report.html"
WINDOW: Final = 2000  # scored events that a point of the curve covers; fewer in a short run
SLICES: Final = {
    "all": "all events",
    "new_titles": "new titles (fewer than 10 events)",
    "unseen_titles": "titles with no event yet",
    "new_users": "new viewers (fewer than 5 events)",
}
_KINDS: Final = {"event": "a viewer's event changes the list", "launch": "a launched title enters a first list"}


class Portrait(NamedTuple):
    """A viewer at the end of the run: what was watched last, newest first, and the list in Redis, best first."""

    user: str
    events: int  # so far
    watched: Sequence[str]
    listed: Sequence[tuple[str, bool]]  # name, whether it launched during the live part


@dataclass(frozen=True)
class Outcome:
    """Everything that a run showed. Counts are of events since the run began."""

    data: str
    simulated: bool
    seconds: float
    phases: Mapping[str, float]  # seconds that each took
    settings: Mapping[str, str]
    events: int  # that were to be played
    produced: int
    learned: int
    duplicates: int
    dead_lettered: int
    samples: Sequence[Sample]
    mark: Sample  # where the live part began
    portraits: Sequence[Portrait]
    behind: Mapping[int, int]  # how often a list that was read did not know so many events of its viewer
    shown: Mapping[str, float | None]  # what the lists in Redis showed, live: `model.metrics.beyond_accuracy.SHOWN`

    @property
    def counts(self) -> dict[str, int]:
        """What became of every event that was produced. Waiting below 0: some were counted twice."""
        waiting = self.produced - self.learned - self.duplicates - self.dead_lettered
        own = {name: getattr(self, name) for name in ("produced", "learned", "duplicates", "dead_lettered")}
        return {**own, "waiting": waiting}

    @property
    def live(self) -> Tally:
        """The measures' sums over the live part."""
        return since(self.samples[-1].tally, self.mark.tally)

    def freshness(self, kind: str) -> Histogram:
        """Of the live part."""
        return self.samples[-1].freshness[kind] - self.mark.freshness[kind]


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The report's contract: mrr, hr10 and ndcg10 by ranking and slice, counts, freshness_ms, simulated, data."""
    live = outcome.live
    return {
        "format": FORMAT,
        "data": outcome.data,
        "simulated": outcome.simulated,
        "events": outcome.events,
        "live_events": outcome.produced - outcome.mark.produced,
        "scored": int(live["full"].scored[0]) if "full" in live else 0,
        "seconds": round(outcome.seconds, 1),
        "phases": {name: round(seconds, 1) for name, seconds in outcome.phases.items()},
        "counts": outcome.counts,
        "launches": outcome.samples[-1].launched,
        "versions": (outcome.samples[-1].version if outcome.samples[-1].version is not None else -1) + 1,
        "freshness_ms": {kind: milliseconds(outcome.freshness(kind)) for kind in KINDS},
        "served_behind_events": {name: quantile(outcome.behind, q) for name, q in QUANTILES.items()},
        "lag": dict(outcome.samples[-1].lag),
        **table(live),
        "shown": {measure: {"served": value} for measure, value in outcome.shown.items()},
        "settings": dict(outcome.settings),
    }


def quantile(counts: Mapping[int, int], q: float) -> int | None:
    """The least value that a share `q` of all is at or below; None of nothing."""
    wanted, so_far = q * sum(counts.values()), 0
    for value, count in sorted(counts.items()):
        so_far += count
        if so_far >= wanted:
            return value
    return None


def write(outcome: Outcome, folder: Path) -> tuple[Path, Path]:
    """Both files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON).write_text(json.dumps(as_json(outcome), indent=2) + "\n")
    (folder / HTML).write_text(page(outcome))
    return folder / JSON, folder / HTML


def page(outcome: Outcome) -> str:
    """The page, whole."""
    found = as_json(outcome)
    warning = (
        "The audience was simulated: no real data could be had. The numbers say that the loop works, not how well."
    )
    template = Template(Path(__file__).with_name("page.html").read_text())
    return template.substitute(
        data=escape(outcome.data),
        simulated=f'<p class="warning">{warning}</p>' if outcome.simulated else "",
        summary=summary(outcome),
        quality=_quality(found),
        behind=_behind(found),
        shown=_shown(outcome.shown),
        means=charts.means(curves(outcome), LABELS),
        delays=_delays(found),
        freshness=_freshness(outcome),
        lag=_lag(outcome),
        counts=_counts(found),
        portraits="".join(_portrait(portrait) for portrait in outcome.portraits),
        settings="".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in outcome.settings.items()),
    )


def summary(outcome: Outcome) -> str:
    """In plain words what happened."""
    live, counts = outcome.produced - outcome.mark.produced, outcome.counts
    words = [
        f"{outcome.produced:,} events and {outcome.samples[-1].launched:,} titles went through the loop in "
        f"{clock(outcome.seconds)} minutes; the last {live:,} events came live.",
        "Every event is accounted for."
        if counts["waiting"] == 0
        else f"{counts['waiting']:,} events are unaccounted for!",
    ]
    if outcome.produced < outcome.events:
        words.append(
            f"The time set for the demo ended it before the last {outcome.events - outcome.produced:,} events."
        )
    words.append(_against(table(outcome.live)["mrr"]))
    return " ".join(words)


def _against(mrr: Mapping[str, Mapping[str, float | None]]) -> str:
    """The model beside the best baseline."""
    baselines = {n: m["all"] for n, m in mrr.items() if n not in ("full", "served") and m["all"] is not None}
    own = mrr.get("full", {}).get("all")
    if own is None or not baselines:
        return "No event was scored."
    name, best = max(baselines.items(), key=lambda item: item[1] or 0.0)
    served = mrr.get("served", {}).get("all")
    shown = "" if served is None else f" ({served:.4f} as served from Redis)"
    times = f", {best / own:.0%} of that" if own and best else ""
    return (
        f"The model's mean reciprocal rank on them was {own:.4f}{shown}; the best simple way ({LABELS[name]}) "
        f"had {best:.4f}{times}."
    )


def curves(outcome: Outcome, window: int = WINDOW) -> dict[str, charts.Line]:
    """Each ranking's MRR over the live part, at each sample over the `window` scored events before it."""
    live = [sample for sample in outcome.samples if sample.seconds >= outcome.mark.seconds]
    lines: dict[str, charts.Line] = {}
    for name in (name for name in LABELS if name in outcome.live):
        scored = np.array([since(s.tally, outcome.mark.tally)[name].scored[0] for s in live if name in s.tally])
        total = np.array([since(s.tally, outcome.mark.tally)[name].total[0, 0] for s in live if name in s.tally])
        wide = min(window, max(1.0, scored[-1] / 8)) if len(scored) else 1.0
        early = np.maximum(scored.searchsorted(scored - wide, "right") - 1, 0)
        kept = scored - scored[early] >= 0.8 * wide
        mean = (total - total[early])[kept] / (scored - scored[early])[kept]
        lines[name] = scored[kept].tolist(), mean.tolist()
    return lines


def _freshness(outcome: Outcome) -> str:
    histograms = {kind: outcome.freshness(kind) for kind in KINDS if outcome.freshness(kind).count}
    if not histograms:
        return "<p>Nothing was measured.</p>"
    return charts.freshness(histograms, _KINDS)


def _lag(outcome: Outcome) -> str:
    seconds = [sample.seconds for sample in outcome.samples]
    names = dict.fromkeys(name for sample in outcome.samples for name in sample.lag)
    starts: dict[str, float] = {}
    for sample in outcome.samples:
        starts.setdefault(sample.phase, sample.seconds)
    lines = {name: (seconds, [float(sample.lag.get(name, 0)) for sample in outcome.samples]) for name in names}
    return charts.lag(lines, list(starts.items()))


def _quality(found: Mapping[str, Any]) -> str:
    """MRR by slice, HR@10 and NDCG@10 on all."""
    rows = []
    for name, label in LABELS.items():
        if name in found["mrr"]:
            means = [found["mrr"][name][s] for s in SLICES] + [found[m][name]["all"] for m in ("hr10", "ndcg10")]
            cells = "".join(f"<td>{'–' if mean is None else f'{mean:.4f}'}</td>" for mean in means)
            rows.append(f'<tr class="{name}"><th>{escape(label)}</th>{cells}</tr>')
    heads = "".join(f"<th>{escape(label)}</th>" for label in (*SLICES.values(), "HR@10", "NDCG@10"))
    return f"<table><tr><th>MRR, then HR@10 and NDCG@10 on all</th>{heads}</tr>{''.join(rows)}</table>"


def _behind(found: Mapping[str, Any]) -> str:
    half = found["served_behind_events"]["p50"]
    if not half:
        return ""
    return (
        f"This run pressed a viewer's evening into seconds: half of the lists lacked {half:,} or more of the events "
        "that this viewer had just caused. At the pace of life a list lags by a second, which is one event or none."
    )


def _shown(shown: Mapping[str, float | None]) -> str:
    coverage, popularity, with_new = (shown[measure] for measure in SHOWN)
    if coverage is None or popularity is None or with_new is None:
        return ""
    return (
        f"The first {TOP} of the lists in Redis showed {coverage:.1%} of all titles; one that was shown had "
        f"{popularity:,.0f} events on average, and {with_new:.0%} of the lists held a title of fewer than {NEW_TITLE}."
    )


def _delays(found: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><th>{escape(_KINDS[kind])}</th>"
        + "".join(f"<td>{'–' if ms is None else f'{ms:,.0f} ms'}</td>" for ms in quantiles.values())
        + "</tr>"
        for kind, quantiles in found["freshness_ms"].items()
    ]
    return (
        f"<table><tr><th></th><th>half within</th><th>95 % within</th><th>99 % within</th></tr>{''.join(rows)}</table>"
    )


def _counts(found: Mapping[str, Any]) -> str:
    named = {name.replace("_", " "): count for name, count in found["counts"].items()}
    heads, cells = "".join(f"<th>{n}</th>" for n in named), "".join(f"<td>{c:,}</td>" for c in named.values())
    spent = ", ".join(f"{name} {clock(seconds)}" for name, seconds in found["phases"].items())
    return f"<table><tr>{heads}</tr><tr>{cells}</tr></table><p>Where the time went: {spent}.</p>"


def _portrait(portrait: Portrait) -> str:
    watched = "".join(f"<li>{escape(name)}</li>" for name in portrait.watched)
    new = ' <span class="new">launched live</span>'
    listed = "".join(f"<li>{escape(name)}{new if launched else ''}</li>" for name, launched in portrait.listed)
    return (
        f'<section class="viewer"><h3>Viewer {escape(portrait.user)}, {portrait.events:,} events</h3>'
        f"<div><h4>watched last, newest first</h4><ul>{watched}</ul></div>"
        f"<div><h4>the list in Redis</h4><ol>{listed}</ol></div></section>"
    )
