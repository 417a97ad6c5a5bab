"""`premiere staleness`: how much of its MRR a list keeps while it lies in the cache, by what the model was trained for.

The rows differ in what the backbone is trained to predict: the next event; the paper's set of the next events, which
one head learns with decaying weights (arXiv 2605.23312; windows of 3, 5 and 10 events); or what comes after a delay,
for which the decoder has a horizon each. All learn from one stream in one run and are asked for lists of every age
(`infra.experiments.stale_lists`), with and without what the viewer took since, for leaving that out at reading mends part of it.
Each is told twice: as the backbone's own order, and as the final lists, whose ranker may learn from delays as well.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.text_encoders import Encoder
from infra.charts import COLOURS, LOOK, SERIES
from infra.data.datasets import DataSet
from infra.experiments.evaluate import UNCOUNTED
from infra.experiments.harness import ALONE, Parts, Recorded, Say, head, scored, stream
from infra.experiments.stale_lists import (
    EVENTS,
    FILTERS,
    HOURS,
    ORDERS,
    Aging,
    StaleListEvaluation,
    Variant,
    events_age,
    hours_age,
    ranking,
)
from infra.experiments.verdicts import BETTER, JUDGEMENTS, WORSE, judged, told
from infra.run.learn import numerics
from model.learner import Learner, LearnerSettings, new_pipeline
from model.signals.ranker import Ranker

NEXT, HORIZONS, FIRST, AS_SET = "next event", "horizons", "horizons, its first alone", "as set"
DELAYS: Final = (0, 2, 5, 10, 20)  # the horizons of the row `horizons`
TAUGHT: Final = "next event, ranker taught delays"
WINDOWS: Final = {"window 3": 3, "window 5": 5, "window 10": 10}
RIVALS: Final = (NEXT, *WINDOWS)
EVERY: Final = 8  # of one event in so many the final lists and the hours are asked
GOAL: Final = 2  # events from which on the matching horizon is to win
OTHERS: Final = (
    (HORIZONS, FIRST),
    (HORIZONS, TAUGHT),
    (FIRST, NEXT),
    (AS_SET, NEXT),
    *((row, NEXT) for row in WINDOWS),
)
PAIRS: Final = (*((HORIZONS, rival) for rival in RIVALS), *OTHERS)
OVER: Final = " over "
MISSED: Final = "where something was missed"
COUNTED: Final = {"missed": "since when one was missed", "unknown": "when nothing was known yet"}


def variants(settings: LearnerSettings) -> dict[str, LearnerSettings]:
    """What each backbone is trained for. A window's weights halve every half of it; a horizon's window is as wide as
    its delay, and 5 events at least, as the shipped ones are."""

    def trained(horizons: tuple[int, ...], windows: tuple[int, ...], **objective: float) -> LearnerSettings:
        s = settings.sequence
        objective_ = replace(s.objective, windows=windows, **objective)  # type: ignore[arg-type]
        return replace(
            settings, sequence=replace(s, network=replace(s.network, horizons=horizons), objective=objective_)
        )

    single = {name: trained((0,), (width,), half_life=width / 2) for name, width in WINDOWS.items()}
    widths = (1, *(max(5, k) for k in DELAYS[1:]))
    return {NEXT: trained((0,), (1,)), **single, HORIZONS: trained(DELAYS, widths), AS_SET: settings}


def rivals(settings: LearnerSettings) -> tuple[dict[str, Aging], dict[str, Variant]]:
    """The contenders, those that lend first, and the ways to serve their lists."""
    trained = variants(settings)
    aging = {
        name: Aging.of(new_pipeline(of), settings.repeats, delayed=name in (HORIZONS, AS_SET))
        for name, of in trained.items()
    }
    taught = Aging.of(new_pipeline(settings, backbone=False), settings.repeats, shared_backbone=aging[NEXT])
    taught.ranker = Ranker(settings.ranker, settings.seed)  # which does see the backbone that is lent
    ways: dict[str, Variant] = {}
    for name, one in aging.items():
        assert one.sequence is not None
        ways[name] = Variant(one, one.sequence, trained[name].sequence.network.horizons)
    ways[FIRST] = replace(ways[HORIZONS], horizons=(0,))
    ways[TAUGHT] = Variant(taught, ways[NEXT].backbone, DELAYS, alone=False)
    return {**aging, TAUGHT: taught}, ways


def report(data: DataSet, encode: Encoder, settings: LearnerSettings, say: Say, every: int = EVERY) -> dict[str, Any]:
    """MRR by way, age, order and filter, and the paired differences; hours and final lists of one event in `every`."""
    numerics(1)
    pipelines, ways = rivals(settings)
    asker = StaleListEvaluation(settings, ways, int(len(data) * UNCOUNTED), every)
    delays = replace(settings, sequence=variants(settings)[HORIZONS].sequence)  # that rankers learn from
    history = settings.memory.most_seen  # a list of some hours ago may lack more events than a log's record holds
    stream(data, encode, Learner(delays, {**pipelines, "ages": asker}), say, history=history)
    return {
        **head(data, scored(asker.recorded)),
        "every": every,
        "settings": asdict(settings),
        "horizons": {name: list(way.horizons) for name, way in ways.items()},
        "ago": _events(asker),
        "hours": _hours(asker),
    }


def _events(asker: StaleListEvaluation) -> dict[str, Any]:
    """Lists of some events ago, of events that have all ages."""
    ages = [events_age(k) for k in EVENTS]
    records = {ALONE: asker.recorded, "": asker.sampled}
    asked = {order: _asked(of, ranking(NEXT, order, ages[-1], FILTERS[0])) for order, of in records.items()}
    return {
        "scored": {title: int(asked[order].sum()) for order, title in ORDERS.items()},
        **{
            title: _tables(asker.ways, records[order], order, dict.fromkeys(ages, asked[order]))
            for order, title in ORDERS.items()
        },
    }


def _hours(asker: StaleListEvaluation) -> dict[str, Any]:
    """Lists of some hours ago: of all events asked, and of those since which the viewer did something."""
    ages, gap_N = [hours_age(hours) for hours in HOURS], np.array(asker.gaps)
    asked = dict.fromkeys(ages, np.ones(len(asker.sampled), np.bool_))
    missed = {age: np.array(asker.missed[age]) > 0 for age in ages}

    def tables(parts: Parts) -> dict[str, Any]:
        return {title: _tables(asker.ways, asker.sampled, order, parts) for order, title in ORDERS.items()}

    return {
        "scored": len(asker.sampled),
        "gaps": {age: int((gap_N >= hours).sum()) for age, hours in zip(ages, HOURS, strict=True)},
        "missed": {age: int(inside.sum()) for age, inside in missed.items()},
        "unknown": {age: sum(asker.unknown[age]) for age in ages},
        **tables(asked),
        MISSED: tables(missed),
    }


def _asked(record: Recorded, name: str) -> NDArray[np.bool_]:
    known_N: NDArray[np.bool_] = ~np.isnan(np.array(record.ranks[name], np.float64))
    return known_N


def _tables(serving: Mapping[str, Variant], record: Recorded, order: str, parts: Parts) -> dict[str, Any]:
    """By filter: MRR by way and age over the events of the age's part, and what is kept of the first age's MRR over the
    same; gains of one way over another."""
    first = next(iter(parts))
    ways = [name for name, way in serving.items() if way.alone or order != ALONE]

    def mean(way: str, age: str, of: str, kept: str) -> float | None:
        return record.mrr(ranking(way, order, age, kept), {of: parts[of]})[of]

    def gain(pair: tuple[str, str], age: str, kept: str) -> dict[str, float] | None:
        one, other = (ranking(way, order, age, kept) for way in pair)
        return record.gain(one, other, {age: parts[age]})[age]

    pairs = [pair for pair in PAIRS if set(pair) <= set(ways)]
    return {
        kept: {
            "mrr": {way: {age: mean(way, age, age, kept) for age in parts} for way in ways},
            "fresh": {way: {age: mean(way, first, age, kept) for age in parts} for way in ways},
            "gain": {OVER.join(pair): {age: gain(pair, age, kept) for age in parts} for pair in pairs},
        }
        for kept in FILTERS
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The report for reading."""
    ago, hours = found["ago"], found["hours"]
    yield f"{found['data']}: {found['events']:,} events, {found['scored']:,} scored, {found['users']:,} users."
    yield f"Hours and final lists are asked for one event in {found['every']}."
    for title, count in ago["scored"].items():
        for kept, of in ago[title].items():
            yield ""
            yield from _table(f"{title}, {kept}: {count:,} events, by events ago", of)
    yield ""
    yield " " * 44 + "".join(f"{age:>10}" for age in hours["missed"])
    yield _counts(found["scored"], "so long after the one before", hours["gaps"])
    for counts, title in COUNTED.items():
        yield _counts(hours["scored"], title, hours[counts])
    for tables in (hours, hours[MISSED]):
        for title in ORDERS.values():
            for kept, of in tables[title].items():
                yield ""
                yield from _table(f"{title}, {kept}: by hours ago{', ' + MISSED if tables is not hours else ''}", of)
    yield ""
    yield from verdicts(found)


def _counts(of: int, title: str, counts: Mapping[str, int]) -> str:
    return f"of {of:>7,} events {title:<28}" + "".join(f"{count:>10,}" for count in counts.values())


def _table(title: str, of: Mapping[str, Any]) -> Iterator[str]:
    """MRR, and the share of it that is kept, by way."""
    ages = list(next(iter(of["mrr"].values())))
    yield f"MRR of {title}; then the share kept"
    yield " " * 34 + "".join(f"{age:>10}" for age in ages) + "".join(f"{age.split()[0]:>7}" for age in ages)
    for way, mrr in of["mrr"].items():
        means = "".join(f"{'-' if value is None else f'{value:.4f}':>10}" for value in mrr.values())
        shares = "".join(f"{'-' if share is None else f'{share:.0%}':>7}" for share in share_kept(of, way).values())
        yield f"  {way:<32}{means}{shares}"


def share_kept(of: Mapping[str, Any], way: str, beside: str | None = None) -> dict[str, float | None]:
    """By age, MRR as a share of that of a list of no age over the same events; of another way's with `beside`."""
    fresh = of["fresh"][beside or way]
    return {age: mrr / fresh[age] if mrr is not None and fresh[age] else None for age, mrr in of["mrr"][way].items()}


def verdicts(found: Mapping[str, Any]) -> Iterator[str]:
    """What the intervals say of lists of some events ago, and of those of this moment."""
    for title in ORDERS.values():
        for without, of in found["ago"][title].items():
            yield f"Of {title}, {without}:"
            now = found["hours"][title][without]["gain"][FIRST + OVER + NEXT][hours_age(0)]
            yield f"  horizon 0, asked as it happens of all viewers, against next-event training: {_fresh(now)}."
            fresh = of["gain"][FIRST + OVER + NEXT][events_age(0)]
            yield f"  horizon 0, of viewers with a past as below: {_fresh(fresh)}."
            gains = {rival: of["gain"][HORIZONS + OVER + rival] for rival in RIVALS}
            for rival, by_age in gains.items():
                yield f"  the matching horizon against '{rival}': {_ages(by_age)}."
            yield f"  {_goal(gains)}"


def _fresh(gain: Mapping[str, float] | None) -> str:
    if gain is None:
        return "nothing was asked"
    return f"{judged(gain)}, MRR {told(gain)}"


def _ages(by_age: Mapping[str, Mapping[str, float] | None]) -> str:
    """Ages by what their intervals say, as numbers of events."""
    by_word = {word: [age.split()[0] for age, gain in by_age.items() if judged(gain) == word] for word in JUDGEMENTS}
    return "; ".join(f"{word} at {', '.join(ages)}" for word, ages in by_word.items() if ages) + " events"


def _goal(gains: Mapping[str, Mapping[str, Mapping[str, float] | None]]) -> str:
    """Whether the matching horizon wins wherever an interval tells."""
    late = [events_age(k) for k in EVENTS if k >= GOAL]
    words = {(rival, age): judged(by_age[age]) for rival, by_age in gains.items() for age in late}
    won, lost = (sum(word == wanted for word in words.values()) for wanted in (BETTER, WORSE))
    count = f"from {GOAL} events on it is better in {won} of {len(words)} comparisons and worse in {lost}"
    if lost:
        return f"The matching horizon does not win throughout: {count}."
    if won:
        return f"The matching horizon wins wherever an interval can tell: {count}."
    return f"Whether the matching horizon wins cannot be told: {count}."


STYLES: Final[dict[str, tuple[str, str]]] = {
    NEXT: (SERIES[0], "s-"),
    "window 3": ("#f3cf8f", "o-"),
    "window 5": (SERIES[1], "o-"),
    "window 10": ("#a8742a", "o-"),
    AS_SET: (SERIES[2], "D-"),
    TAUGHT: (SERIES[5], "s--"),
    FIRST: (COLOURS["full"], "o:"),
    HORIZONS: (COLOURS["full"], "o-"),
}


def draw(found: Mapping[str, Any], path: Path) -> None:
    """What is kept of next-event training's MRR, by age in events and in hours, of backbones and of lists (PNG)."""
    import matplotlib.pyplot as plt

    with plt.rc_context(LOOK):
        figure, places = plt.subplots(2, 2, figsize=(13, 9), layout="constrained")
        for row, (ages, tables) in enumerate(((EVENTS, found["ago"]), (HOURS, found["hours"]))):
            for axes, title in zip(places[row], ORDERS.values(), strict=True):
                of = tables[title][FILTERS[0]]
                for way, (colour, style) in STYLES.items():
                    if way in of["mrr"]:
                        share = [math.nan if v is None else 100 * v for v in share_kept(of, way, NEXT).values()]
                        axes.plot(range(len(ages)), share, style, color=colour, lw=2, ms=5, label=way)
                many = tables["scored"] if row else tables["scored"][title]
                axes.set_xticks(range(len(ages)), ages)
                axes.set_xlabel(f"{('events', 'hours')[row]} since the list was made ({many:,} events asked)")
                axes.set_title(title)
        for axes in places[:, 0]:
            axes.set_ylabel("MRR, % of next-event training's without age")
        figure.legend(*places[0, 1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
        plt.close(figure)
