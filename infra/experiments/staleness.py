"""`premiere staleness`: measure the share of MRR that a list keeps as it ages, by the training target of the model.

The variants differ in what the backbone is trained to predict:
- the next event;
- the paper's set of next events, which one head learns with decaying weights (arXiv 2605.23312; windows of 3, 5 and 10
  events);
- the event after a delay, with one head (horizon) per delay.

All learn from one stream in one run and are evaluated with lists of every age (`infra.experiments.stale_lists`). Lists
are ranked with and without the titles that the user interacted with since: removing them at reading repairs part of the
loss. Each variant is reported in two orders (see `infra.experiments.harness`): backbone only, and final lists. The
ranker of the final lists may learn from delays too.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.text_encoders import Encoder
from infra.data.datasets import Dataset
from infra.experiments.backbone_ranks import BACKBONE_ONLY, FINAL_LISTS, ORDER_LABELS
from infra.experiments.harness import EventMasks, ScoredEvents, report_header, require_scored, run_prequential
from infra.experiments.prequential import warmup_targets
from infra.experiments.stale_lists import (
    EVENT_AGES,
    FILTERED,
    FILTERS,
    HOUR_AGES,
    NearestHorizon,
    StaleLists,
    Variant,
    event_age_label,
    hour_age_label,
    ranking_key,
)
from infra.experiments.variants import SharedBackbone, WithoutDelayed
from infra.experiments.verdicts import BETTER, INCONCLUSIVE, VERDICTS, WORSE, verdict
from infra.learner_settings import set_threads
from infra.progress import Reporter
from model.learner import Learner
from model.pipeline import Pipeline, new_pipeline
from model.settings import LearnerSettings
from model.signals.ranker import Ranker

NEXT_EVENT, HORIZONS, FIRST_HORIZON, CURRENT = "next event", "horizons", "horizons, first only", "current settings"
DELAYS: Final = (0, 2, 5, 10, 20)  # the horizons of the variant HORIZONS, in events
DELAY_TRAINED: Final = "next event, ranker trained on delays"
WINDOWS: Final = {"window 3": 3, "window 5": 5, "window 10": 10}
BASELINES: Final = (NEXT_EVENT, *WINDOWS)
SAMPLE_EVERY: Final = 8  # every 8th event is evaluated with final lists and with ages in hours
MIN_GOAL_AGE: Final = 2  # events; from this age on, the matching horizon should win
OTHER_PAIRS: Final = (
    (HORIZONS, FIRST_HORIZON),
    (HORIZONS, DELAY_TRAINED),
    (FIRST_HORIZON, NEXT_EVENT),
    (CURRENT, NEXT_EVENT),
    *((window, NEXT_EVENT) for window in WINDOWS),
)
PAIRS: Final = (*((HORIZONS, baseline) for baseline in BASELINES), *OTHER_PAIRS)
OVER: Final = " over "
MISSED_ONLY: Final = "with_missed_events"  # part of the report: only events since which the list missed an event


def variant_settings(settings: LearnerSettings) -> dict[str, LearnerSettings]:
    """The training targets of each backbone. The weights of a window halve every half window. The window of a horizon
    is as wide as its delay, and at least 5 events, as in the default settings."""

    def trained(horizons: tuple[int, ...], windows: tuple[int, ...], **objective: float) -> LearnerSettings:
        s = settings.sequence
        objective_ = replace(s.objective, target_windows=windows, **objective)  # type: ignore[arg-type]
        return replace(
            settings, sequence=replace(s, network=replace(s.network, horizons=horizons), objective=objective_)
        )

    single = {name: trained((0,), (width,), half_life=width / 2) for name, width in WINDOWS.items()}
    widths = (1, *(max(5, k) for k in DELAYS[1:]))
    return {NEXT_EVENT: trained((0,), (1,)), **single, HORIZONS: trained(DELAYS, widths), CURRENT: settings}


def build_variants(settings: LearnerSettings) -> tuple[dict[str, Pipeline], dict[str, Variant]]:
    """The pipelines that learn, in order (a pipeline comes before those that read its backbone), and the variants that
    are evaluated."""
    changed = variant_settings(settings)
    bases = {name: new_pipeline(own) for name, own in changed.items()}
    pipelines: dict[str, Pipeline] = {name: NearestHorizon(base) for name, base in bases.items()}
    pipelines |= {name: WithoutDelayed(pipelines[name]) for name in bases if name not in (HORIZONS, CURRENT)}
    delay_trained = new_pipeline(settings, backbone=False)
    delay_trained.ranker = Ranker(
        settings.ranker, settings.seed
    )  # with the backbone's signals, unlike the one replaced
    pipelines[DELAY_TRAINED] = SharedBackbone(delay_trained, bases[NEXT_EVENT])
    variants: dict[str, Variant] = {}
    for name, base in bases.items():
        assert base.sequence is not None
        variants[name] = Variant(base, base.sequence, changed[name].sequence.network.horizons)
    variants[FIRST_HORIZON] = replace(variants[HORIZONS], horizons=(0,))
    variants[DELAY_TRAINED] = Variant(delay_trained, variants[NEXT_EVENT].backbone, DELAYS, ranks_backbone=False)
    return pipelines, variants


def report(
    data: Dataset,
    encode: Encoder,
    settings: LearnerSettings,
    progress: Reporter,
    sample_every: int = SAMPLE_EVERY,
) -> dict[str, Any]:
    """MRR by variant, list age, order and filter, and paired differences. One event in `sample_every` is evaluated with
    final lists and with ages in hours."""
    set_threads(1)
    pipelines, variants = build_variants(settings)
    stale_lists = StaleLists(settings, variants, warmup_targets(data), sample_every)
    delays = replace(settings, sequence=variant_settings(settings)[HORIZONS].sequence)  # that rankers learn from
    history = settings.stream_state.max_seen  # a list some hours old may miss more events than a record's history holds
    run_prequential(data, encode, Learner(delays, pipelines), progress, [stale_lists], history=history)
    by_events = _by_events(stale_lists)
    return {
        **report_header(data, require_scored(stale_lists.recorded)),
        "sample_every": sample_every,
        "settings": asdict(settings),
        "horizons": {name: list(variant.horizons) for name, variant in variants.items()},
        "by_events": by_events,
        "by_hours": _by_hours(stale_lists),
        "matching_horizon": {
            order: {filter_: matching_horizon(table["gain"]) for filter_, table in by_events[order].items()}
            for order in ORDER_LABELS
        },
    }


def _by_events(stale_lists: StaleLists) -> dict[str, Any]:
    """Metrics by age in events, over the events that were ranked at all ages."""
    ages = [event_age_label(k) for k in EVENT_AGES]
    records = {BACKBONE_ONLY: stale_lists.recorded, FINAL_LISTS: stale_lists.sampled}
    ranked = {
        order: _ranked(record, ranking_key(NEXT_EVENT, order, ages[-1], FILTERED)) for order, record in records.items()
    }
    return {
        "scored": {order: int(ranked[order].sum()) for order in ORDER_LABELS},
        **{
            order: _tables(stale_lists.variants, records[order], order, dict.fromkeys(ages, ranked[order]))
            for order in ORDER_LABELS
        },
    }


def _by_hours(stale_lists: StaleLists) -> dict[str, Any]:
    """Metrics by age in hours: over all sampled events, and over those since which the list missed an event."""
    ages, gap_N = [hour_age_label(hours) for hours in HOUR_AGES], np.array(stale_lists.gap_hours)
    all_events = dict.fromkeys(ages, np.ones(len(stale_lists.sampled), np.bool_))
    missed = {age: np.array(stale_lists.missed[age]) > 0 for age in ages}

    def tables(masks: EventMasks) -> dict[str, Any]:
        return {order: _tables(stale_lists.variants, stale_lists.sampled, order, masks) for order in ORDER_LABELS}

    return {
        "scored": len(stale_lists.sampled),
        "gaps": {age: int((gap_N >= hours).sum()) for age, hours in zip(ages, HOUR_AGES, strict=True)},
        "missed": {age: int(inside.sum()) for age, inside in missed.items()},
        "empty": {age: sum(stale_lists.empty[age]) for age in ages},
        **tables(all_events),
        MISSED_ONLY: tables(missed),
    }


def _ranked(record: ScoredEvents, key: str) -> NDArray[np.bool_]:
    ranked_N: NDArray[np.bool_] = ~np.isnan(np.array(record.ranks[key], np.float64))
    return ranked_N


def _tables(serving: Mapping[str, Variant], record: ScoredEvents, order: str, masks: EventMasks) -> dict[str, Any]:
    """By filter: MRR by variant and age over the events of the age's mask; MRR of the youngest list over the same
    events (`mrr_at_age_0`); and the gains of PAIRS."""
    first = next(iter(masks))
    variants = [name for name, variant in serving.items() if variant.ranks_backbone or order != BACKBONE_ONLY]

    def mean(variant: str, age: str, mask: str, filter_: str) -> float | None:
        return record.mrr(ranking_key(variant, order, age, filter_), {mask: masks[mask]})[mask]

    def gain(pair: tuple[str, str], age: str, filter_: str) -> dict[str, float] | None:
        one, other = (ranking_key(variant, order, age, filter_) for variant in pair)
        return record.gain(one, other, {age: masks[age]})[age]

    pairs = [pair for pair in PAIRS if set(pair) <= set(variants)]
    return {
        filter_: {
            "mrr": {variant: {age: mean(variant, age, age, filter_) for age in masks} for variant in variants},
            "mrr_at_age_0": {
                variant: {age: mean(variant, first, age, filter_) for age in masks} for variant in variants
            },
            "gain": {OVER.join(pair): {age: gain(pair, age, filter_) for age in masks} for pair in pairs},
        }
        for filter_ in FILTERS
    }


def matching_horizon(gains: Mapping[str, Mapping[str, Mapping[str, float] | None]]) -> dict[str, Any]:
    """Whether the matching horizon beats every baseline from MIN_GOAL_AGE on: the number of comparisons by verdict,
    and an overall verdict: WORSE if any comparison is, else BETTER if any is. `gains`: pair -> age -> gain."""
    late = [event_age_label(k) for k in EVENT_AGES if k >= MIN_GOAL_AGE]
    counts = Counter(verdict(gains[HORIZONS + OVER + baseline][age]) for baseline in BASELINES for age in late)
    overall = next((word for word in (WORSE, BETTER) if counts[word]), INCONCLUSIVE)
    return {"verdict": overall, **{word: counts[word] for word in VERDICTS}}
