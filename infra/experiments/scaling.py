"""`premiere scaling`: how quality grows with the size of the backbone by task, and from which size on growing is not
worth its cost.

All sizes learn from one stream in one run. They share the stream state, micro-batches, requests and learning rate; only
the backbone's width, blocks and heads differ. Each size is run several times with different seeds, because two seeds of
one size can differ more than two sizes. Confidence intervals resample users and seeds. Each task is reported in two
orders: backbone only, and final lists, whose ranker also reads counters and texts. The final lists are compared with
those of the ranker without a backbone. The laws are those of `model.metrics.scaling_law`.
Source: arXiv 2605.23312 (one stream, one split, only the backbone differs; MRR per task).

N scored events · C runs · S sizes · K seeds · D draws
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.text_encoders import Encoder
from infra.data.datasets import Dataset
from infra.errors import SettingsError
from infra.experiments.backbone_ranks import FINAL_LISTS, ORDER_LABELS, BackboneRanks, backbone_only, recorded_name
from infra.experiments.flops import parameters
from infra.experiments.harness import ScoredEvents, action_codes, report_header, require_scored, run_prequential
from infra.experiments.prequential import Measurement, warmup_targets
from infra.experiments.stale_lists import (
    ListContext,
    ListRead,
    backbone_ranks,
    events_ago,
    final_list_ranks,
    read_list,
    uncounted_event,
)
from infra.experiments.variants import Timed
from infra.experiments.verdicts import MIN_USERS
from infra.learner_settings import set_threads
from infra.progress import Reporter
from model.learner import Learner
from model.metrics import bootstrap
from model.metrics.ranking import NEW_TITLE_EVENTS
from model.metrics.scaling_law import MIN_SIZES, fit_laws, resample_seeds
from model.pipeline import PreparedRequest, RankingPipeline, RankingRequest, new_pipeline
from model.sequence.tasks import LIKED
from model.settings import PRESETS, BackboneSize, LearnerSettings
from model.signals import candidates
from model.signals.candidates import Scores
from model.signals.inputs import user_query
from model.signals.query_scores import AllScores
from model.signals.snapshot import CatalogSnapshot
from model.state.stream_state import History

DEFAULT_SIZES: Final = ("16x1", "32x1", "64x2", "96x3", "128x4", "2m")
NO_BACKBONE: Final = "no_backbone"
DELAYED_EVERY: Final = 4  # every 4th event is also ranked in a delayed list
MAX_GENRES: Final = 3  # the most frequent genres are tasks
MIN_TASK_EVENTS: Final = 100  # tasks with fewer events are left out
RESAMPLES: Final = 500


def parse_size(name: str) -> BackboneSize:
    """A size by name: a preset, or WIDTHxBLOCKS with one head per 32 of its width. Raises SettingsError."""
    if name in PRESETS:
        return PRESETS[name]
    width, _, blocks = name.partition("x")
    if not (width.isdecimal() and blocks.isdecimal() and int(width) and int(blocks)):
        sizes = ", ".join(PRESETS)
        raise SettingsError(f"{name!r} is not a size: give WIDTHxBLOCKS, for example 64x2, or one of {sizes}.")
    heads = max(1, int(width) // 32)
    if int(width) % heads:
        raise SettingsError(f"{name!r}: a width above 32 must be a multiple of its {heads} heads.")
    return BackboneSize(int(width), int(blocks), heads)


def with_size(settings: LearnerSettings, size: BackboneSize) -> LearnerSettings:
    """The same settings with a backbone of this size."""
    network = replace(settings.sequence.network, **size._asdict())
    return replace(settings, sequence=replace(settings.sequence, network=network))


def sweep(names: Sequence[str], settings: LearnerSettings) -> dict[str, LearnerSettings]:
    """The settings of each size, smallest first. Raises SettingsError if there are too few sizes to fit a law."""
    sizes = {name: with_size(settings, parse_size(name)) for name in names}
    count = {name: parameters(sized.sequence.network) for name, sized in sizes.items()}
    if len(set(count.values())) < max(MIN_SIZES, len(names)):
        raise SettingsError(f"A law of three constants needs {MIN_SIZES} distinct sizes or more: {', '.join(names)}.")
    return {name: sizes[name] for name in sorted(sizes, key=count.__getitem__)}


class DelayedLists(Measurement):
    """Ranks the target in lists made `delay` events before (the last horizon), for one event in DELAYED_EVERY.

    Titles that the user interacted with since are removed (`infra.experiments.stale_lists`). `recorded` has the ranks.
    """

    def __init__(self, settings: LearnerSettings, pipelines: Mapping[str, RankingPipeline], first: int) -> None:
        super().__init__()
        self.pipelines, self.first, self.repeats = pipelines, first, settings.repeats
        self.delay = settings.sequence.network.horizons[-1]
        self.recorded, self.done = ScoredEvents(), 0

    def on_prepared(
        self, snapshot: CatalogSnapshot, _histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        self.contexts: dict[int, ListContext] = {}  # by request index
        for n, request in enumerate(requests):
            if request.delay:
                continue
            if self.done >= self.first and self.done % DELAYED_EVERY == 0 and 0 < self.delay < request.event_index:
                self.contexts[n] = events_ago(request.history, self.delay)
            self.done += 1
        contexts = list(self.contexts.values())
        self.delayed_NV = {
            name: _delayed_scores(pipeline, contexts, snapshot) for name, pipeline in self.pipelines.items() if contexts
        }

    def on_ranked(self, snapshot: CatalogSnapshot, prepared: PreparedRequest) -> dict[str, float]:
        request, n = prepared.request, prepared.n
        seen = snapshot.stream_state.user_store.seen_by(request.history.user)
        if n in self.contexts and (self.repeats or request.target not in seen):
            read = read_list(request, self.contexts[n], seen, self.repeats)
            ranks = self._ranks(snapshot, read, list(self.contexts).index(n))
            self.recorded.add(uncounted_event(snapshot, request), ranks)
        return {}

    def _ranks(self, snapshot: CatalogSnapshot, read: ListRead, index: int) -> dict[str, float]:
        history, made_at, missed = read.context
        query = user_query(snapshot.stream_state, history, made_at, missed)
        user = candidates.user_signals(snapshot, query)
        text, no_rows = candidates.text_scores(snapshot, [history])[0], np.zeros(0, np.int64)
        ranks: dict[str, float] = {}
        for name, pipeline in self.pipelines.items():
            ranker, shortlist = pipeline.ranker, pipeline.shortlist
            scores = Scores(pipeline.static, text, AllScores(self.delayed_NV[name][index]))
            found = candidates.generate_candidates(snapshot, ranker, user, scores, read.blocked, shortlist, no_rows)
            ranks[name], _ = final_list_ranks(found, ranker, read)
            if pipeline.sequence is not None:
                score_V = np.where(snapshot.titles.candidate_V, self.delayed_NV[name][index], -np.inf)
                ranks[backbone_only(name)], _ = backbone_ranks(score_V, read)
        return ranks


def _delayed_scores(
    pipeline: RankingPipeline, contexts: Sequence[ListContext], snapshot: CatalogSnapshot
) -> NDArray[np.float32]:
    """The backbone's scores for these contexts by the last horizon; zero without a backbone."""
    if pipeline.sequence is None:
        return np.zeros((len(contexts), len(snapshot.titles.candidate_V)), np.float32)
    hidden_ND = pipeline.sequence.hidden_now([c.history for c in contexts], [c.made_at for c in contexts])
    return pipeline.sequence.scores(hidden_ND, len(pipeline.sequence.settings.network.horizons) - 1)


def report(
    data: Dataset,
    encode: Encoder,
    settings: LearnerSettings,
    progress: Reporter,
    names: Sequence[str] = (),
    seeds: int = 3,
) -> dict[str, Any]:
    """MRR by task, order and size, both laws, and the gains of the largest size. Raises SettingsError."""
    set_threads(1)
    sizes = sweep(names or DEFAULT_SIZES, settings)
    pipelines = {
        _run(name, k): new_pipeline(replace(sized, seed=settings.seed + k))
        for name, sized in sizes.items()
        for k in range(seeds)
    }
    pipelines[NO_BACKBONE] = new_pipeline(settings, backbone=False)
    timed = {name: Timed(pipeline) for name, pipeline in pipelines.items()}
    delayed = DelayedLists(settings, pipelines, warmup_targets(data))
    measurements = [BackboneRanks(pipelines, settings.repeats), delayed]
    recorded = require_scored(run_prequential(data, encode, Learner(settings, timed), progress, measurements))
    network = settings.sequence.network
    return {
        **report_header(data, recorded),
        "settings": asdict(settings),
        "seeds": seeds,
        "current_size": next((name for name, sized in sizes.items() if sized.sequence.network == network), None),
        "sizes": {
            name: {
                "parameters": parameters(sized.sequence.network),
                "heads": sized.sequence.network.heads,
                "cpu_seconds": sum(timed[_run(name, k)].cpu_seconds for k in range(seeds)) / seeds,
            }
            for name, sized in sizes.items()
        },
        "no_backbone_cpu_seconds": timed[NO_BACKBONE].cpu_seconds,
        "tasks": _by_task(data, recorded, delayed, sizes, seeds),
    }


def _run(size: str, seed: int) -> str:
    """The name of one run in the learner."""
    return f"{size} seed {seed}"


def _by_task(
    data: Dataset, recorded: ScoredEvents, delayed: DelayedLists, sizes: Mapping[str, LearnerSettings], seeds: int
) -> dict[str, Any]:
    """The results of each task that has enough events and users."""
    all_delayed = {f"delayed by {delayed.delay} events": np.ones(len(delayed.recorded), bool)} if delayed.delay else {}
    results: dict[str, Any] = {}
    n_S = np.array([parameters(sized.sequence.network) for sized in sizes.values()], float)
    for record, masks in ((recorded, task_masks(data, recorded)), (delayed.recorded, all_delayed)):
        for task, inside_N in masks.items():
            user_N = np.array(record.users)[inside_N]
            if len(user_N) < MIN_TASK_EVENTS or len(set(user_N.tolist())) < MIN_USERS:
                continue
            orders = {order: _order_result(record, inside_N, list(sizes), seeds, order, n_S) for order in ORDER_LABELS}
            results[task] = {"events": len(user_N), "users": len(set(user_N.tolist())), **orders}
    return results


def task_masks(data: Dataset, recorded: ScoredEvents) -> dict[str, NDArray[np.bool_]]:
    """The scored events of each task: all, by preference (liked or not), by genre, and on new titles."""
    masks = {"next event": np.ones(len(recorded), bool)}
    liked_N = LIKED.numpy()[action_codes(data, recorded)]
    if liked_N.any() and not liked_N.all():
        masks |= {"liked": liked_N, "not liked": ~liked_N}
    genres = {launch.title: set(launch.genres) for launch in data.launches}
    genres_N = [genres.get(title, set()) for title in recorded.titles]
    counts = Counter(genre for of_title in genres_N for genre in of_title)
    for genre, _ in sorted(counts.most_common(), key=_by_count_then_name)[:MAX_GENRES]:
        masks[genre] = np.array([genre in of_title for of_title in genres_N], bool)
    new_N = np.array(recorded.title_events) < NEW_TITLE_EVENTS
    return masks | {"new titles": new_N}


def _by_count_then_name(counted: tuple[str, int]) -> tuple[int, str]:
    return -counted[1], counted[0]


def _order_result(
    record: ScoredEvents,
    inside_N: NDArray[np.bool_],
    names: Sequence[str],
    seeds: int,
    order: str,
    n_S: NDArray[np.float64],
) -> dict[str, Any]:
    """The results of one task in one order."""
    with_reference = order == FINAL_LISTS  # the variant without a backbone has no backbone-only order
    runs = [recorded_name(_run(name, k), order) for name in names for k in range(seeds)]
    runs += [NO_BACKBONE] if with_reference else []
    value_NC = np.stack([record.reciprocal_ranks(run)[inside_N] for run in runs], 1)
    p_C, user_N = value_NC.mean(0), np.array(record.users)[inside_N]
    p_DC = bootstrap.bootstrap_means(value_NC, user_N, RESAMPLES)
    count = len(names) * seeds
    p_SK = p_C[:count].reshape(len(names), seeds)
    p_S, p_DS = p_SK.mean(1), resample_seeds(p_DC[:, :count].reshape(-1, len(names), seeds))
    gains = {name: (p_S[-1] - p_S[s], p_DS[:, -1] - p_DS[:, s]) for s, name in enumerate(names[:-1])}
    if with_reference:
        gains[NO_BACKBONE] = p_S[-1] - p_C[-1], p_DS[:, -1] - p_DC[:, -1]
    mrr = dict(zip(names, p_S.tolist(), strict=True))
    return {
        "mrr": mrr | ({NO_BACKBONE: float(p_C[-1])} if with_reference else {}),
        "by_seed": dict(zip(names, p_SK.tolist(), strict=True)),
        "gain_of_largest": {name: dict(_interval(*gain)) for name, gain in gains.items()},
        "law": fit_laws(n_S, p_S, p_DS),
    }


def _interval(mean: float, drawn_D: NDArray[np.float64]) -> Iterator[tuple[str, float]]:
    tails = [(1 - bootstrap.CONFIDENCE_LEVEL) / 2, (1 + bootstrap.CONFIDENCE_LEVEL) / 2]
    low, high = np.quantile(drawn_D, tails).tolist()
    yield from (("mean", float(mean)), ("low", low), ("high", high))
