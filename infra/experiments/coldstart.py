"""`premiere coldstart`: how well titles are ranked by their age in events, by what a title vector is made of.

Rows differ in the title tower alone: ids without texts, texts without ids, both, and both with ids masked in training
as often as a title is met without an event. All learn from the same stream in one run. Each is told twice, as the
backbone's own order and as the final lists, whose ranker reads counters and texts as well and can hide what the
backbone learns. Beside the backbones: the nearest neighbours by text; beside the lists: those without a backbone.
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
from infra.experiments.harness import ALONE, Recorded, Say, head, rank_by, scored, stream, watched
from infra.experiments.verdicts import told
from infra.run.learn import numerics
from model.learner import Learner, LearnerSettings
from model.metrics.popularity_buckets import BUCKETS
from model.pipeline import RankingPipeline, RankingRequest, RankResult
from model.signals.candidates import CatalogSnapshot
from model.signals.ranker import Ranker
from model.signals.table import Query

IDS, TEXTS, UNMASKED, MASKED = "id only", "semantic only", "both, never masked", "both, masked"
NEIGHBORS: Final = "text neighbours"
WITHOUT: Final = "no backbone"
ROWS: Final = (IDS, TEXTS, UNMASKED, MASKED)
NEW, WARM = BUCKETS[0], BUCKETS[-1]
MOST: Final = 0.01  # share of the warm titles' MRR that masking may cost


class Neighbours(RankingPipeline):
    """Ranks by the cosine of a title's text and the user's recent titles, and by nothing else."""

    def __init__(self, settings: LearnerSettings) -> None:
        super().__init__(Ranker(replace(settings.ranker, buffer=1)), None, learns=False)
        self.repeats = settings.repeats

    def prepare(self, *_: Any) -> None:
        """There is nothing to encode."""

    def rank(
        self,
        snapshot: CatalogSnapshot,
        request: RankingRequest,
        _n: int,
        _asked: Query,
        text_V: NDArray[np.float32],
        *_: Any,
    ) -> RankResult:
        return RankResult(rank_by(text_V, snapshot, request, self.repeats), np.zeros(0, np.int64))


def cold_share(data: DataSet) -> float:
    """The share of events whose title had none before."""
    return len(np.unique(data.title)) / max(len(data), 1)


def variants(settings: LearnerSettings, mask: float) -> dict[str, LearnerSettings]:
    """The rows. An id that counts as much as no id after infinitely many events never counts."""

    def changed(mask: float, **network: Any) -> LearnerSettings:
        s = settings.sequence
        objective, shape = replace(s.objective, id_mask=mask), replace(s.network, **network)
        return replace(settings, sequence=replace(s, network=shape, objective=objective))

    return {
        IDS: changed(0.0, semantic=False),
        TEXTS: changed(0.0, id_evidence=math.inf),
        UNMASKED: changed(0.0),
        MASKED: changed(mask),
    }


def report(
    data: DataSet, encode: Encoder, settings: LearnerSettings, say: Say, mask: float | None = None
) -> dict[str, Any]:
    """MRR and HR@10 by row and age, and the paired differences; `mask` is measured on the first fifth unless given."""
    numerics(1)
    first = int(len(data) * UNCOUNTED)
    measured = cold_share(data.slice(0, first))
    mask = measured if mask is None else mask
    pipelines: dict[str, RankingPipeline] = {name: watched(of) for name, of in variants(settings, mask).items()}
    pipelines |= {NEIGHBORS: Neighbours(settings), WITHOUT: watched(settings, backbone=False)}
    recorded = scored(stream(data, encode, Learner(settings, pipelines), say))
    ages = recorded.ages()
    return {
        **head(data, recorded),
        "cold_share": measured,
        "mask": mask,
        "settings": asdict(settings),
        "ages": {age: int(inside.sum()) for age, inside in ages.items()},
        "alone": _measures(recorded, {**{row: row + ALONE for row in ROWS}, NEIGHBORS: NEIGHBORS}),
        "lists": _measures(recorded, {**{row: row for row in ROWS}, WITHOUT: WITHOUT}),
    }


def _measures(recorded: Recorded, rankings: Mapping[str, str]) -> dict[str, Any]:
    """By row: MRR and HR@10 by age, and the gain in MRR over the row that is never masked."""
    ages = recorded.ages()
    return {
        row: {
            "mrr": recorded.mrr(name, ages),
            "hr10": recorded.hr10(name, ages),
            "gain": recorded.gain(name, rankings[UNMASKED], ages),
        }
        for row, name in rankings.items()
    }


ORDERS: Final = {"alone": "the backbone alone", "lists": "the final lists"}


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The report for reading."""
    yield f"{found['data']}: {found['events']:,} events, {found['scored']:,} scored, {found['users']:,} users"
    yield f"Of the first fifth of the events {found['cold_share']:.1%} met a title without an event; ids are masked"
    yield f"at {found['mask']:.1%}. Ages are half-open, from the first number up to the next column's."
    yield ""
    yield f"{'events of the title':<24}" + "".join(f"{age:>9}" for age in BUCKETS) * 2
    yield f"{'MRR, then HR@10':<24}" + "".join(f"{count:>9,}" for count in found["ages"].values())
    for order, title in ORDERS.items():
        yield f"{title}:"
        for row, of in found[order].items():
            cells = [*of["mrr"].values(), *of["hr10"].values()]
            yield f"  {row:<22}" + "".join(f"{'-' if cell is None else f'{cell:.4f}':>9}" for cell in cells)
    yield ""
    yield from verdicts(found)


def verdicts(found: Mapping[str, Any]) -> Iterator[str]:
    """What the intervals say of masking, and of each row at a title's first event."""
    for order, title in ORDERS.items():
        yield f"Of {title}: masking {_cost(found[order][MASKED]['gain'][WARM], found[order][UNMASKED]['mrr'][WARM])}"
    for order, title in ORDERS.items():
        by_age = {f"at {age} events": gain for age, gain in found[order][MASKED]["gain"].items()}
        yield f"Of {title}: what masking does to MRR: {_told(by_age)}."
    for order, title in ORDERS.items():
        by_row = {row: of["gain"][NEW] for row, of in found[order].items() if row != UNMASKED}
        yield f"Of {title}: at a title's first event, MRR less that of '{UNMASKED}': {_told(by_row)}."


def _cost(gain: Mapping[str, float] | None, before: float | None) -> str:
    if gain is None or not before:
        return "cannot be judged: no title had 20 events."
    cost, low, high = (-gain[key] / before for key in ("mean", "high", "low"))
    told = f"{cost:+.1%} of their MRR [{low:+.1%}, {high:+.1%}]"
    if high <= MOST:
        return f"costs warm titles (20 events and more) no more than 1 %: {told}."
    if low > MOST:
        return f"costs warm titles (20 events and more) more than 1 %: {told}."
    return f"may or may not cost warm titles (20 events and more) over 1 %, these events cannot tell: {told}."


def _told(gains: Mapping[str, Mapping[str, float] | None]) -> str:
    """Gains with their intervals, those that there are."""
    known = [f"{name} {told(gain)}" for name, gain in gains.items() if gain is not None]
    return ", ".join(known) or "nothing that was scored"


STYLES: Final[dict[str, tuple[str, str]]] = {
    IDS: (SERIES[1], "o-"),
    TEXTS: (SERIES[2], "o-"),
    UNMASKED: ("#8e6c8a", "o-"),
    MASKED: (COLOURS["full"], "o-"),
    NEIGHBORS: (SERIES[0], "s--"),
    WITHOUT: (SERIES[0], "s--"),
}


def draw(found: Mapping[str, Any], path: Path) -> None:
    """MRR over the age of the title, of backbones and of lists (PNG)."""
    import matplotlib.pyplot as plt

    with plt.rc_context(LOOK):
        figure, places = plt.subplots(1, 2, figsize=(12.5, 4.8), layout="constrained", sharey=True)
        for axes, (order, title) in zip(places, ORDERS.items(), strict=True):
            for row, of in found[order].items():
                colour, style = STYLES[row]
                mrr = [math.nan if value is None else value for value in of["mrr"].values()]
                label = f"{row} {found['mask']:.0%}" if row == MASKED else row
                axes.plot(range(len(BUCKETS)), mrr, style, color=colour, lw=2, ms=6, label=label)
            axes.set_xticks(range(len(BUCKETS)), [f"{age}\n({count:,})" for age, count in found["ages"].items()])
            axes.set(yscale="log", xlabel="events of the title before (scored events)", title=title)
            axes.legend(loc="lower right")
        places[0].set_ylabel("MRR")
        figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
        plt.close(figure)
