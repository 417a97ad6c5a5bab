"""The report of `premiere staleness` as text and as a figure.

Every sentence follows from a confidence interval: of lists of age 0, and of the matching horizon against the baselines.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from infra.charts import COLORS, SERIES_COLORS, figure, legend_below
from infra.experiments.backbone_ranks import ORDER_LABELS
from infra.experiments.stale_lists import EVENT_AGES, FILTERED, HOUR_AGES, UNFILTERED, event_age_label, hour_age_label
from infra.experiments.staleness import (
    BASELINES,
    CURRENT,
    DELAY_TRAINED,
    FIRST_HORIZON,
    HORIZONS,
    MIN_GOAL_AGE,
    MISSED_ONLY,
    NEXT_EVENT,
    OVER,
)
from infra.experiments.verdicts import VERDICTS, format_ci, verdict

FILTER_LABELS: Final = {FILTERED: "titles seen since removed", UNFILTERED: "titles seen since kept"}
COUNT_LABELS: Final = {"missed": "with missed events", "empty": "with an empty history then"}


def share_kept(table: Mapping[str, Any], variant: str, reference: str | None = None) -> dict[str, float | None]:
    """MRR by age as a share of the MRR at age 0 over the same events, the variant's own or that of `reference`."""
    at_0 = table["mrr_at_age_0"][reference or variant]
    return {
        age: mrr / at_0[age] if mrr is not None and at_0[age] else None for age, mrr in table["mrr"][variant].items()
    }


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The report as lines of text."""
    by_events, by_hours = result["by_events"], result["by_hours"]
    yield f"{result['data']}: {result['events']:,} events, {result['scored']:,} scored, {result['users']:,} users."
    yield f"One event in {result['sample_every']} is evaluated with final lists and with ages in hours."
    for order, count in by_events["scored"].items():
        for filter_, table in by_events[order].items():
            yield ""
            heading = f"{ORDER_LABELS[order]}, {FILTER_LABELS[filter_]}, by age in events ({count:,} events)"
            yield from _table(heading, table)
    yield ""
    yield " " * 44 + "".join(f"{age:>10}" for age in by_hours["missed"])
    yield _counts(result["scored"], "at least so long after the last", by_hours["gaps"])
    for count_key, label in COUNT_LABELS.items():
        yield _counts(by_hours["scored"], label, by_hours[count_key])
    for tables in (by_hours, by_hours[MISSED_ONLY]):
        part = f", {COUNT_LABELS['missed']}" if tables is not by_hours else ""
        for order, label in ORDER_LABELS.items():
            for filter_, table in tables[order].items():
                yield ""
                yield from _table(f"{label}, {FILTER_LABELS[filter_]}, by age in hours{part}", table)
    yield ""
    yield from conclusions(result)


def _counts(total: int, label: str, counts: Mapping[str, int]) -> str:
    return f"of {total:>7,} events {label:<28}" + "".join(f"{count:>10,}" for count in counts.values())


def _table(heading: str, table: Mapping[str, Any]) -> Iterator[str]:
    """MRR by variant and age, and the share kept."""
    ages = list(next(iter(table["mrr"].values())))
    yield f"MRR, {heading}; then the share kept"
    yield " " * 38 + "".join(f"{age:>10}" for age in ages) + "".join(f"{age.split()[0]:>7}" for age in ages)
    for variant, mrr in table["mrr"].items():
        means = "".join(f"{'-' if value is None else f'{value:.4f}':>10}" for value in mrr.values())
        kept = share_kept(table, variant).values()
        shares = "".join(f"{'-' if share is None else f'{share:.0%}':>7}" for share in kept)
        yield f"  {variant:<36}{means}{shares}"


def conclusions(result: Mapping[str, Any]) -> Iterator[str]:
    """The verdicts on lists of age 0 and on the matching horizon, as sentences."""
    for order, label in ORDER_LABELS.items():
        for filter_, table in result["by_events"][order].items():
            yield f"{label}, {FILTER_LABELS[filter_]}:"
            now = result["by_hours"][order][filter_]["gain"][FIRST_HORIZON + OVER + NEXT_EVENT][hour_age_label(0)]
            yield f"  horizon 0 against next-event training, age 0, all users: {_gain(now)}."
            at_0 = table["gain"][FIRST_HORIZON + OVER + NEXT_EVENT][event_age_label(0)]
            long_history = f"users with more than {EVENT_AGES[-1]} events"
            yield f"  horizon 0 against next-event training, age 0, {long_history}: {_gain(at_0)}."
            gains = {baseline: table["gain"][HORIZONS + OVER + baseline] for baseline in BASELINES}
            for baseline, by_age in gains.items():
                yield f"  matching horizon against '{baseline}': {_verdicts_by_age(by_age)}."
            yield f"  {_goal(result['matching_horizon'][order][filter_])}"


def _gain(gain: Mapping[str, float] | None) -> str:
    return "nothing was scored" if gain is None else f"{verdict(gain)}, MRR {format_ci(gain)}"


def _verdicts_by_age(by_age: Mapping[str, Mapping[str, float] | None]) -> str:
    """Ages, as numbers of events, grouped by verdict."""
    by_word = {word: [age.split()[0] for age, gain in by_age.items() if verdict(gain) == word] for word in VERDICTS}
    return "; ".join(f"{word} at {', '.join(ages)}" for word, ages in by_word.items() if ages) + " events"


def _goal(goal: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{goal[word]} {word}" for word in VERDICTS)
    return f"matching horizon from {MIN_GOAL_AGE} events on: {goal['verdict']} (comparisons: {counts})."


VARIANT_STYLES: Final[dict[str, tuple[str, str]]] = {
    NEXT_EVENT: (SERIES_COLORS[0], "s-"),
    "window 3": ("#f3cf8f", "o-"),
    "window 5": (SERIES_COLORS[1], "o-"),
    "window 10": ("#a8742a", "o-"),
    CURRENT: (SERIES_COLORS[2], "D-"),
    DELAY_TRAINED: (SERIES_COLORS[5], "s--"),
    FIRST_HORIZON: (COLORS["full"], "o:"),
    HORIZONS: (COLORS["full"], "o-"),
}


def draw(result: Mapping[str, Any], path: Path) -> None:
    """The share kept of next-event training's MRR, by age in events and in hours, in both orders."""
    with figure(path, (13, 9), rows=2, columns=2) as panels:
        for row, (ages, tables) in enumerate(((EVENT_AGES, result["by_events"]), (HOUR_AGES, result["by_hours"]))):
            for axes, (order, title) in zip(panels[2 * row : 2 * row + 2], ORDER_LABELS.items(), strict=True):
                table = tables[order][FILTERED]
                for variant, (color, style) in VARIANT_STYLES.items():
                    if variant in table["mrr"]:
                        kept = share_kept(table, variant, NEXT_EVENT).values()
                        share = [math.nan if value is None else 100 * value for value in kept]
                        axes.plot(range(len(ages)), share, style, color=color, lw=2, ms=5, label=variant)
                count = tables["scored"] if row else tables["scored"][order]
                axes.set_xticks(range(len(ages)), [str(age) for age in ages])
                axes.set_xlabel(f"{('events', 'hours')[row]} since the list was made ({count:,} events scored)")
                axes.set_title(title)
        for axes in panels[::2]:
            axes.set_ylabel("MRR, % of next-event training at age 0")
        legend_below(panels[1:2])
