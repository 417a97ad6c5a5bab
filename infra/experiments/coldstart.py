"""`premiere coldstart`: compare ID-only, text-only, combined and ID-masked title embeddings by title popularity.

The variants differ only in the title tower: ids without texts, texts without ids, both, and both with ids masked at the
rate of first events in the stream (events on titles without earlier events). All learn from the same stream in one run.
Each variant is reported in two orders (see `infra.experiments.harness`): backbone only, and final lists. The ranker of
the final lists also reads counters and texts, so it can hide what the backbone learns. The reference of the first order
is the ranking by nearest text neighbors, that of the second the ranker without a backbone.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.text_encoders import Encoder
from infra.charts import COLORS, SERIES_COLORS, figure
from infra.data.datasets import Dataset
from infra.experiments.backbone_ranks import (
    BACKBONE_ONLY,
    FINAL_LISTS,
    ORDER_LABELS,
    BackboneRanks,
    backbone_only,
    rank_by_score,
)
from infra.experiments.harness import ScoredEvents, report_header, require_scored, run_prequential
from infra.experiments.prequential import WARMUP_SHARE, Measurement
from infra.experiments.verdicts import INCONCLUSIVE, format_ci
from infra.learner_settings import set_threads
from infra.progress import Reporter
from model.learner import Learner
from model.metrics.popularity_buckets import POPULARITY_BUCKETS
from model.pipeline import PreparedRequest, new_pipeline
from model.settings import LearnerSettings
from model.signals.snapshot import CatalogSnapshot

VARIANTS = ID_ONLY, TEXT_ONLY, UNMASKED, MASKED = "id only", "text only", "id and text", "id and text, ids masked"
NEIGHBORS: Final = "text neighbors"
NO_BACKBONE: Final = "no_backbone"
UNSEEN, WELL_KNOWN = POPULARITY_BUCKETS[0], POPULARITY_BUCKETS[-1]
MAX_MASKING_COST: Final = 0.01  # share of the MRR on well-known titles that masking may cost
WITHIN_LIMIT, ABOVE_LIMIT = "WITHIN_LIMIT", "ABOVE_LIMIT"  # verdicts on the cost of masking; the third is INCONCLUSIVE


class TextNeighborRanks(Measurement):
    """Ranks the target by the cosine similarity between its text and the texts of the user's recent titles."""

    def __init__(self, repeats: bool) -> None:
        super().__init__({NEIGHBORS: math.inf})
        self.repeats = repeats

    def on_ranked(self, snapshot: CatalogSnapshot, prepared: PreparedRequest) -> dict[str, float]:
        return {NEIGHBORS: rank_by_score(prepared.text, snapshot, prepared.request, self.repeats)}


def cold_share(data: Dataset) -> float:
    """The share of events on titles that had no event before."""
    return len(np.unique(data.title)) / max(len(data), 1)


def variant_settings(settings: LearnerSettings, mask: float) -> dict[str, LearnerSettings]:
    """The settings of each variant. With infinite `id_evidence`, ids never count, however many events a title has."""

    def changed(mask: float, **network: Any) -> LearnerSettings:
        s = settings.sequence
        objective, shape = replace(s.objective, id_mask=mask), replace(s.network, **network)
        return replace(settings, sequence=replace(s, network=shape, objective=objective))

    return {
        ID_ONLY: changed(0.0, use_text=False),
        TEXT_ONLY: changed(0.0, id_evidence=math.inf),
        UNMASKED: changed(0.0),
        MASKED: changed(mask),
    }


def report(
    data: Dataset, encode: Encoder, settings: LearnerSettings, progress: Reporter, mask: float | None = None
) -> dict[str, Any]:
    """MRR, HR@10 and paired differences by variant and popularity bucket. `mask` is the share of masked ids; by default
    it is the share of cold events in the first fifth."""
    set_threads(1)
    first = int(len(data) * WARMUP_SHARE)
    measured = cold_share(data.slice(0, first))
    mask = measured if mask is None else mask
    changed = variant_settings(settings, mask)
    pipelines = {name: new_pipeline(own) for name, own in changed.items()}
    pipelines |= {NO_BACKBONE: new_pipeline(settings, backbone=False)}
    measurements = [BackboneRanks(pipelines, settings.repeats), TextNeighborRanks(settings.repeats)]
    recorded = require_scored(run_prequential(data, encode, Learner(settings, pipelines), progress, measurements))
    buckets = recorded.popularity_buckets()
    by_backbone = {**{variant: backbone_only(variant) for variant in VARIANTS}, NEIGHBORS: NEIGHBORS}
    by_list = {**{variant: variant for variant in VARIANTS}, NO_BACKBONE: NO_BACKBONE}
    orders = {BACKBONE_ONLY: _metrics(recorded, by_backbone), FINAL_LISTS: _metrics(recorded, by_list)}
    return {
        **report_header(data, recorded),
        "cold_share": measured,
        "mask": mask,
        "settings": asdict(settings),
        "popularity_buckets": {bucket: int(inside.sum()) for bucket, inside in buckets.items()},
        **orders,
        "masking_cost": {
            order: masking_cost(by_variant[MASKED]["gain"][WELL_KNOWN], by_variant[UNMASKED]["mrr"][WELL_KNOWN])
            for order, by_variant in orders.items()
        },
    }


def _metrics(recorded: ScoredEvents, names: Mapping[str, str]) -> dict[str, Any]:
    """By variant: MRR and HR@10 by popularity bucket, and the gain in MRR over UNMASKED. `names`: variant -> recorded
    name."""
    buckets = recorded.popularity_buckets()
    return {
        variant: {
            "mrr": recorded.mrr(name, buckets),
            "hr10": recorded.hr10(name, buckets),
            "gain": recorded.gain(name, names[UNMASKED], buckets),
        }
        for variant, name in names.items()
    }


def masking_cost(gain: Mapping[str, float] | None, unmasked_mrr: float | None) -> dict[str, Any] | None:
    """The share of `unmasked_mrr` that masking costs, with its interval and a verdict against MAX_MASKING_COST; None
    if nothing was scored."""
    if gain is None or not unmasked_mrr:
        return None
    mean, low, high = (-gain[key] / unmasked_mrr for key in ("mean", "high", "low"))
    word = WITHIN_LIMIT if high <= MAX_MASKING_COST else ABOVE_LIMIT if low > MAX_MASKING_COST else INCONCLUSIVE
    return {"verdict": word, "mean": mean, "low": low, "high": high}


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The report as lines of text."""
    yield f"{result['data']}: {result['events']:,} events, {result['scored']:,} scored, {result['users']:,} users"
    yield f"Cold share (events on titles without earlier events) in the first fifth: {result['cold_share']:.1%}."
    yield f"Masked ids in training: {result['mask']:.1%}. Popularity buckets are half-open."
    yield ""
    yield f"{'events of the title':<24}" + "".join(f"{bucket:>9}" for bucket in POPULARITY_BUCKETS) * 2
    counts = result["popularity_buckets"].values()
    yield f"{'MRR, then HR@10':<24}" + "".join(f"{count:>9,}" for count in counts)
    for order, label in ORDER_LABELS.items():
        yield f"{label}:"
        for variant, metrics in result[order].items():
            cells = [*metrics["mrr"].values(), *metrics["hr10"].values()]
            yield f"  {variant:<22}" + "".join(f"{'-' if cell is None else f'{cell:.4f}':>9}" for cell in cells)
    yield ""
    yield from conclusions(result)


def conclusions(result: Mapping[str, Any]) -> Iterator[str]:
    """The cost of masking, and the gains by popularity bucket and on unseen titles, as sentences."""
    for order, label in ORDER_LABELS.items():
        yield f"{label}, cost of masking ids on titles with 20 or more events: {_cost(result['masking_cost'][order])}"
    for order, label in ORDER_LABELS.items():
        by_bucket = {f"at {bucket} events": gain for bucket, gain in result[order][MASKED]["gain"].items()}
        yield f"{label}, gain in MRR by masking ids: {_gains(by_bucket)}."
    for order, label in ORDER_LABELS.items():
        by_variant = {v: metrics["gain"][UNSEEN] for v, metrics in result[order].items() if v != UNMASKED}
        yield f"{label}, gain in MRR over '{UNMASKED}' on unseen titles: {_gains(by_variant)}."


def _cost(cost: Mapping[str, Any] | None) -> str:
    if cost is None:
        return "unknown, no such title was scored."
    judgement = {
        WITHIN_LIMIT: f"at most {MAX_MASKING_COST:.0%}",
        ABOVE_LIMIT: f"more than {MAX_MASKING_COST:.0%}",
        INCONCLUSIVE: f"inconclusive, the 95 % CI contains {MAX_MASKING_COST:.0%}",
    }[cost["verdict"]]
    return f"{judgement}: {cost['mean']:+.1%} of MRR [{cost['low']:+.1%}, {cost['high']:+.1%}]."


def _gains(gains: Mapping[str, Mapping[str, float] | None]) -> str:
    """The gains that were measured, with their intervals."""
    measured = [f"{name} {format_ci(gain)}" for name, gain in gains.items() if gain is not None]
    return ", ".join(measured) or "nothing was scored"


VARIANT_STYLES: Final[dict[str, tuple[str, str]]] = {
    ID_ONLY: (SERIES_COLORS[1], "o-"),
    TEXT_ONLY: (SERIES_COLORS[2], "o-"),
    UNMASKED: ("#8e6c8a", "o-"),
    MASKED: (COLORS["full"], "o-"),
    NEIGHBORS: (SERIES_COLORS[0], "s--"),
    NO_BACKBONE: (SERIES_COLORS[0], "s--"),
}


def draw(result: Mapping[str, Any], path: Path) -> None:
    """MRR over the popularity of the title, backbone only and final lists."""
    with figure(path, (12.5, 4.8), columns=2, sharey=True) as panels:
        for axes, (order, title) in zip(panels, ORDER_LABELS.items(), strict=True):
            for variant, metrics in result[order].items():
                color, style = VARIANT_STYLES[variant]
                mrr = [math.nan if value is None else value for value in metrics["mrr"].values()]
                label = f"{variant} {result['mask']:.0%}" if variant == MASKED else variant
                axes.plot(range(len(POPULARITY_BUCKETS)), mrr, style, color=color, lw=2, ms=6, label=label)
            ticks = [f"{bucket}\n({count:,})" for bucket, count in result["popularity_buckets"].items()]
            axes.set_xticks(range(len(POPULARITY_BUCKETS)), ticks)
            axes.set(yscale="log", xlabel="earlier events of the title (scored events)", title=title)
            axes.legend(loc="lower right")
        panels[0].set_ylabel("MRR")
