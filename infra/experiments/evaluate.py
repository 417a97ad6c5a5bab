"""`premiere evaluate`: prequential (test-then-train) evaluation on a dataset, with baselines.

The learner is the one that runs live. It reads the dataset in time order instead of a Kafka log. The first fifth of the
events is learned but not scored. Two more variants share its stream state: the ranker on counters and texts only
(`no_backbone`), and the model as it was after the first fifth (`frozen`; its counters and histories are still updated).
"""

import copy
import csv
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.text_encoders import Encoder
from infra.data.datasets import Dataset
from infra.experiments import prequential
from infra.experiments.backbone_ranks import BackboneRanks
from infra.experiments.baseline_report import best_recent_window, describe_window
from infra.experiments.prequential import BATCH_EVENTS, MicroBatch, Observer, warmup_targets
from infra.learner_settings import set_threads
from infra.progress import Bar, Reporter
from model.learner import Learner, RankedEvent
from model.metrics import beyond_accuracy, popularity_buckets
from model.metrics.baselines import BASELINES, Baselines
from model.metrics.beyond_accuracy import TOP_K, BeyondAccuracy
from model.metrics.popularity_buckets import POPULARITY_BUCKETS, ByPopularity
from model.metrics.ranking import PrequentialMetrics, ranking_report
from model.pipeline import RankingPipeline, new_pipeline
from model.settings import LearnerSettings

VARIANTS: Final = ("full", "no_backbone", "frozen")
STATUS_VARIANTS: Final = (*VARIANTS, "cooccurrence")  # whose MRR the progress shows
ACTUAL: Final = "actual"  # row of the beyond-accuracy metrics: the titles that users chose, each as a list of one

OnScored = Callable[[RankedEvent, dict[str, float]], None]  # the event, all its ranks by name


def evaluate(
    data: Dataset,
    encode: Encoder,
    settings: LearnerSettings,
    progress: Reporter,
    on_scored: OnScored | None = None,
    with_backbone_only: bool = False,
) -> dict[str, Any]:
    """Return the report: events, scored, seconds, settings, and mrr, hr10 and ndcg10 by variant and slice. `on_scored`
    is called with each scored event; its ranks include the backbone-only order of `full` if `with_backbone_only`."""
    began = time.monotonic()
    set_threads(1)  # the number of threads changes the order of sums, and so the last bits of every result
    full = new_pipeline(settings)
    learner = Learner(settings, {"full": full, "no_backbone": new_pipeline(settings, backbone=False)}, TOP_K)
    measurements = [BackboneRanks({"full": full}, settings.repeats)] if with_backbone_only else []
    with progress.bar(data.targets_before(len(data))) as bar:
        observer = _Evaluation(learner, warmup_targets(data), bar, on_scored)
        prequential.run(data, encode, learner, observer, measurements=measurements)
    scores = observer.scores
    scored = scores.by_slice["full"].scored()["all"]
    candidates = int(np.count_nonzero(learner.stream_state.catalog.candidate_V))
    return {
        "events": len(data),
        "scored": scored,
        "seconds": round(time.monotonic() - began, 1),
        "data": data.name,
        "simulated": data.simulated,
        "settings": asdict(settings),
        **scores.report(candidates),
    }


class _Evaluation(Observer):
    """Scores all variants. Before the first scored event it adds a frozen copy of `full`, so that all variants score
    the same events."""

    def __init__(self, learner: Learner, first: int, bar: Bar, on_scored: OnScored | None) -> None:
        self.learner, self.first, self.bar = learner, first, bar
        self.on_scored, self.scores = on_scored, VariantScores()

    def before_batch(self, done: int, batch: MicroBatch) -> None:
        if done + BATCH_EVENTS > self.first and "frozen" not in self.learner.pipelines:
            self.learner.pipelines["frozen"] = freeze(self.learner.served_pipeline)

    def on_event(self, event: RankedEvent, baselines: Baselines) -> None:
        ranks = self.scores.add(event, baselines)
        if self.on_scored is not None:
            self.on_scored(event, ranks)

    def after_batch(self, done: int) -> None:
        self.bar(done, self.scores.status)


class VariantScores:
    """The metrics of each variant and baseline: accuracy by slice, accuracy by the title's popularity, and
    beyond-accuracy metrics of the lists. The latter also cover the titles that users chose (`actual`)."""

    def __init__(self) -> None:
        names = (*VARIANTS, *BASELINES)
        self.by_slice = {name: PrequentialMetrics() for name in names}
        self.by_popularity = {name: ByPopularity() for name in names}
        self.beyond_accuracy = {name: BeyondAccuracy() for name in (*names, ACTUAL)}
        self.events, self.not_considered = 0, dict.fromkeys(VARIANTS, 0)  # events whose title was no candidate

    def add(self, event: RankedEvent, baselines: Baselines) -> dict[str, float]:
        """Score one event that `baselines` have not counted yet. Returns all its ranks by name."""
        ranks = event.ranks | baselines.rank(event.user, event.title, event.ts)
        self.events += 1
        for name in self.not_considered:
            self.not_considered[name] += math.isinf(ranks[name])
        for name, metrics in self.by_slice.items():
            metrics.add(ranks[name], event.title_events, event.user_events)
            self.by_popularity[name].add(ranks[name], event.title_events)
        lists = {**event.top_titles, **baselines.top_titles(event.user, event.ts, TOP_K), ACTUAL: [event.title]}
        for name, titles in lists.items():
            self.beyond_accuracy[name].add(titles, [baselines.title_events(title) for title in titles])
        return ranks

    def status(self) -> str:
        """MRR so far."""
        means = {name: self.by_slice[name].report()["mrr"]["all"] for name in STATUS_VARIANTS}
        return "  ".join(f"{name} {mean:.4f}" for name, mean in means.items() if mean is not None)

    def report(self, candidates: int) -> dict[str, Any]:
        """All metrics by variant; `candidates`: number of titles that could be listed at the end."""
        lists = beyond_accuracy.beyond_accuracy_report(self.beyond_accuracy, candidates)
        metrics = ranking_report(self.by_slice)
        return {
            **metrics,
            "not_considered": {name: count / max(self.events, 1) for name, count in self.not_considered.items()},
            "best_recent_window": best_recent_window(metrics["mrr"]),
            "by_popularity": popularity_buckets.popularity_report(self.by_popularity),
            "beyond_accuracy": {"top": TOP_K, "candidates": candidates, **lists},
        }


class RankFile:
    """A CSV file with one row per scored event: user, title, time (ms) and rank by variant. Ranks are written with all
    digits, so that `diff` can compare two versions of the code. Without a path it writes nothing."""

    def __init__(self, path: Path | None) -> None:
        self._file = None if path is None else path.open("w", newline="")
        self._header = False

    def __enter__(self) -> "RankFile":
        return self

    def __exit__(self, *_error: object) -> None:
        if self._file is not None:
            self._file.close()

    def __call__(self, event: RankedEvent, ranks: dict[str, float]) -> None:
        if self._file is None:
            return
        write = csv.writer(self._file, lineterminator="\n").writerow
        if not self._header:
            write(["user", "title", "ts", *ranks])
            self._header = True
        write([event.user, event.title, event.ts, *map(repr, ranks.values())])


def freeze(pipeline: RankingPipeline) -> RankingPipeline:
    """A copy of the pipeline with its present weights, which does not learn any more."""
    frozen = copy.copy(pipeline)
    frozen.ranker = copy.deepcopy(pipeline.ranker)
    frozen.sequence = copy.deepcopy(pipeline.sequence)
    frozen.learns = False
    return frozen


def write(report: dict[str, Any], path: Path) -> None:
    """Write a report as JSON."""
    path.write_text(json.dumps(report, indent=1, default=str) + "\n")


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The report as lines of text."""
    yield f"{report['data']}: {report['events']:,} events, {report['scored']:,} scored, {report['seconds']:.0f} s"
    yield f"{'MRR':<20}{'all':>9}{'new titles':>12}{'unseen':>10}{'new users':>11}{'HR@10':>9}{'NDCG@10':>9}"
    for name, by_slice in report["mrr"].items():
        cells = [by_slice[key] for key in ("all", "new_titles", "unseen_titles", "new_users")]
        cells += [report["hr10"][name]["all"], report["ndcg10"][name]["all"]]
        row = [f"{_cell(cell):>{w}}" for cell, w in zip(cells, (9, 12, 10, 11, 9, 9), strict=True)]
        yield f"{name:<20}" + "".join(row)
    shares = ", ".join(f"{name} {share:.1%}" for name, share in report["not_considered"].items())
    yield f"Events whose title was not among the candidates (reciprocal rank 0): {shares}."
    yield describe_window(report["best_recent_window"])
    yield ""
    yield from _popularity_lines(report["by_popularity"])
    yield ""
    yield from _beyond_accuracy_lines(report["beyond_accuracy"])


def _popularity_lines(by_popularity: dict[str, Any]) -> Iterator[str]:
    yield f"{'events of the title':<20}" + "".join(f"{bucket:>9}" for bucket in POPULARITY_BUCKETS) * 2
    yield f"{'MRR, then HR@10':<20}" + "".join(f"{count:>9,}" for count in by_popularity["scored"].values())
    for name, mrr in by_popularity["mrr"].items():
        cells = [*mrr.values(), *by_popularity["hr10"][name].values()]
        yield f"{name:<20}" + "".join(f"{_cell(cell):>9}" for cell in cells)


def _beyond_accuracy_lines(metrics: dict[str, Any]) -> Iterator[str]:
    yield f"top {metrics['top']} of each list, {metrics['candidates']:,} candidates:"
    yield f"{'':<20}{'coverage':>9}{'popularity bias':>19}{'new-title share':>24}"
    for name, coverage in metrics["coverage"].items():
        popularity = metrics["popularity_bias"][name]
        events = "-" if popularity is None else f"{popularity:,.1f}"
        yield f"{name:<20}{_cell(coverage):>9}{events:>19}{_cell(metrics['new_title_share'][name]):>24}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
