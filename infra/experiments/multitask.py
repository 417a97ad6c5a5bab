"""`premiere multitask`: compare one backbone for several tasks with one backbone per task.

The tasks are the next title, the action of the user on it, and its genre (`model.sequence.tasks`). The shared network
is trained on all tasks. Each task also has a dedicated network, trained on this task only, and class-frequency
baselines. All learn from one stream in one run, and predict every event before they learn it. An event without a true
class, such as one on a title without genres, is left out of that task. A task with fewer than two classes is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.text_encoders import Encoder
from infra.data.datasets import Dataset
from infra.experiments.backbone_ranks import BackboneRanks, backbone_only
from infra.experiments.harness import (
    EventMasks,
    ScoredEvents,
    action_codes,
    report_header,
    require_scored,
    run_prequential,
)
from infra.experiments.prequential import Measurement
from infra.experiments.task_evaluators import (
    FREQUENCY_BASELINES,
    LIKE_PROBABILITY,
    NEEDS_TITLE,
    TASK_SEPARATOR,
    FrequencyBaseline,
    HeadRanks,
    with_task_heads,
)
from infra.experiments.variants import LearnsOnly
from infra.experiments.verdicts import verdict
from infra.learner_settings import set_threads
from infra.progress import Reporter
from model.actions import TARGET_WEIGHTS
from model.learner import Learner
from model.metrics import bootstrap
from model.pipeline import Pipeline, new_pipeline
from model.sequence.tasks import ACTION, GENRE, LIKED, TASKS
from model.settings import LearnerSettings
from streaming.records import action_code

TITLE_ONLY: Final = "title only"
SHARED: Final = "shared"
ONLY_SUFFIX: Final = " only"  # after a task: the variant with a backbone dedicated to it
SLICES_SHOWN: Final = ("all", "new_titles", "new_users")
NEXT_TITLE_LISTS, NEXT_TITLE_BACKBONE = "next title, final lists", "next title, backbone only"
LIKED_OR_NOT: Final = "liked or not"
TASK_LABELS: Final = {ACTION: "action on the next title", GENRE: "genre of the next title"}
LEFT_OUT: Final = {
    ACTION: "All events have the same action: the action task is left out.",
    GENRE: "The titles have fewer than two genres: the genre task is left out.",
}


def available_tasks(data: Dataset) -> dict[str, int]:
    """The number of classes of each task that the data supports."""
    actions = {action_code(data.event(k)) for k in range(len(data))}
    genres = {genre.strip().lower() for title in data.launches_with_events() for genre in title.genres}
    classes = {ACTION: sum(TARGET_WEIGHTS[code] > 0 for code in actions), GENRE: len(genres)}
    return {task: count for task, count in classes.items() if count > 1}


def build_variants(
    settings: LearnerSettings, tasks: Sequence[str], weight: float
) -> tuple[dict[str, Pipeline], list[Measurement]]:
    """The pipelines that learn, and what is measured. Networks that learn one further task only do not rank titles."""
    ranking = {TITLE_ONLY: new_pipeline(settings), SHARED: with_task_heads(settings, tasks, 1.0, weight)}
    dedicated = {task: with_task_heads(settings, [task], 0.0, 1.0) for task in tasks}
    pipelines: dict[str, Pipeline] = {**ranking}
    pipelines |= {task + ONLY_SUFFIX: LearnsOnly(pipeline) for task, pipeline in dedicated.items()}
    measurements: list[Measurement] = [BackboneRanks(ranking, settings.repeats)]
    heads = {SHARED: (ranking[SHARED], tasks)} | {task + ONLY_SUFFIX: (dedicated[task], [task]) for task in tasks}
    for variant, (pipeline, own) in heads.items():
        assert pipeline.sequence is not None
        measurements.append(HeadRanks(variant, pipeline.sequence, own))
    for baseline in FREQUENCY_BASELINES:
        supported = [task for task in tasks if TASKS[task].reads_title or baseline not in NEEDS_TITLE]
        if supported:
            measurements.append(FrequencyBaseline(baseline, supported))
    return pipelines, measurements


def report(
    data: Dataset, encode: Encoder, settings: LearnerSettings, progress: Reporter, weight: float | None = None
) -> dict[str, Any]:
    """One panel per task and order: the metric by variant and slice, and the gain of the shared backbone over each
    other variant. `weight`: of a further task's loss; the next title has weight 1."""
    set_threads(1)
    weight = settings.sequence.objective.task_weight if weight is None else weight
    tasks = available_tasks(data)
    panels, recorded = {}, ScoredEvents()
    if tasks:
        pipelines, measurements = build_variants(settings, list(tasks), weight)
        recorded = require_scored(run_prequential(data, encode, Learner(settings, pipelines), progress, measurements))
        panels[NEXT_TITLE_LISTS] = _rank_panel(recorded, TITLE_ONLY, lambda variant: variant)
        panels[NEXT_TITLE_BACKBONE] = _rank_panel(recorded, TITLE_ONLY, backbone_only)
        panels |= {TASK_LABELS[task]: _task_panel(recorded, task) for task in tasks}
    if ACTION in tasks:
        panels[LIKED_OR_NOT] = _like_panel(recorded, data)
    return {
        **report_header(data, recorded),
        "weight": weight,
        "classes": tasks,
        "left_out": [LEFT_OUT[task] for task in TASKS if task not in tasks],
        "settings": asdict(settings),
        "panels": {title: panel | {"verdicts": verdicts(panel)} for title, panel in panels.items()},
    }


def _task_panel(recorded: ScoredEvents, task: str) -> dict[str, Any]:
    return _rank_panel(
        recorded, task + ONLY_SUFFIX, lambda variant: variant + TASK_SEPARATOR + task, FREQUENCY_BASELINES
    )


def _rank_panel(
    recorded: ScoredEvents, dedicated: str, recorded_as: Callable[[str], str], baselines: Sequence[str] = ()
) -> dict[str, Any]:
    """MRR by variant and slice. `dedicated`: the variant with a backbone for this task only; `recorded_as`: the name of
    a variant's ranks."""
    names = [name for name in (dedicated, SHARED, *baselines) if recorded_as(name) in recorded.ranks]
    ranked_N = ~np.isnan(np.array(recorded.ranks[recorded_as(SHARED)]))
    masks = _masks(recorded, ranked_N)
    return {
        "metric": "MRR",
        "dedicated": dedicated,
        "events": {part: int(inside.sum()) for part, inside in masks.items()},
        "values": {name: recorded.mrr(recorded_as(name), masks) for name in names},
        "gain": {
            name: recorded.gain(recorded_as(SHARED), recorded_as(name), masks) for name in names if name != SHARED
        },
    }


def _like_panel(recorded: ScoredEvents, data: Dataset) -> dict[str, Any]:
    """The accuracy of predicting whether the user finishes or likes the title, and over all events the AUC, which does
    not depend on a threshold."""
    truth_N = LIKED.numpy()[action_codes(data, recorded)]
    dedicated = ACTION + ONLY_SUFFIX
    names = (dedicated, SHARED, *FREQUENCY_BASELINES)
    probability = {name: np.array(recorded.ranks[name + LIKE_PROBABILITY]) for name in names}
    correct = {name: ((p_N >= 0.5) == truth_N).astype(np.float64) for name, p_N in probability.items()}
    ranked_N, user_N = ~np.isnan(probability[SHARED]), np.array(recorded.users)
    masks = _masks(recorded, ranked_N)

    def gain(name: str, inside_N: NDArray[np.bool_]) -> dict[str, float] | None:
        interval = bootstrap.confidence_interval((correct[SHARED] - correct[name])[inside_N], user_N[inside_N])
        return None if interval is None else interval._asdict()

    return {
        "metric": "accuracy",
        "dedicated": dedicated,
        "events": {part: int(inside.sum()) for part, inside in masks.items()},
        "liked": float(truth_N[ranked_N].mean()),
        "values": {
            name: {part: float(correct_N[inside].mean()) if inside.any() else None for part, inside in masks.items()}
            for name, correct_N in correct.items()
        },
        "auc": {name: auc(p_N[ranked_N], truth_N[ranked_N]) for name, p_N in probability.items()},
        "gain": {
            name: {part: gain(name, inside) for part, inside in masks.items()} for name in correct if name != SHARED
        },
    }


def _masks(recorded: ScoredEvents, ranked_N: NDArray[np.bool_]) -> EventMasks:
    return {part: inside & ranked_N for part, inside in recorded.slices().items() if part in SLICES_SHOWN}


def auc(score_N: NDArray[np.floating[Any]], truth_N: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve: the share of pairs of a true and a false event in which the true one has the higher
    score, a tie counting half; None if there is no pair."""
    true, false = int(truth_N.sum()), int((~truth_N).sum())
    if not true or not false:
        return None
    _, score_index_N, count_S = np.unique(score_N, return_inverse=True, return_counts=True)
    rank_S = np.cumsum(count_S) - (count_S - 1) / 2
    return float((rank_S[score_index_N][truth_N].sum() - true * (true + 1) / 2) / (true * false))


def verdicts(panel: Mapping[str, Any]) -> dict[str, str | None]:
    """The verdicts over all events: of sharing against the dedicated backbone (`sharing`), and of the shared backbone
    against the best frequency baseline (`against_baseline`; None if the panel has no baseline)."""
    values = {
        name: by_part["all"]
        for name, by_part in panel["values"].items()
        if name in FREQUENCY_BASELINES and by_part["all"] is not None
    }
    best = max(values, key=lambda name: values[name]) if values else None
    return {
        "sharing": verdict(panel["gain"][panel["dedicated"]]["all"]),
        "best_baseline": best,
        "against_baseline": verdict(panel["gain"][best]["all"]) if best else None,
    }
