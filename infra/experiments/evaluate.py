"""`premiere evaluate`: a data set as a stream, each event ranked before it is learned, the simple ways beside the
model.

The learner is the live one, fed with the data set's own order and launch rule instead of a log; the first fifth of the
events is learned and not counted. Beside it, over the same memory: the ranker on counters and text alone
(`features_only`) and the model as it stood after the first fifth (`frozen`; counters and histories run on).
"""

import copy
import csv
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.text_encoders import Encoder, launch_text
from infra.data.datasets import DataSet
from infra.run.learn import numerics
from model.learner import Learner, LearnerSettings, RankedEvent, UserUpdate, new_pipeline
from model.metrics import beyond_accuracy, popularity_buckets
from model.metrics.baselines import NAMES, Baselines
from model.metrics.beyond_accuracy import TOP, BeyondAccuracy
from model.metrics.popularity_buckets import BUCKETS, ByPopularity
from model.metrics.ranking import Prequential, table
from model.pipeline import RankingPipeline
from model.state.stream_state import TitleMetadata
from streaming.records import HISTORY, Launch, action_code

UNCOUNTED: Final = 0.2  # share of the events that is learned before the first is scored
MODELS: Final = ("full", "no_backbone", "frozen")
TAKEN: Final = "taken"  # what viewers chose, beside what they would have been shown
BATCH: Final = 64  # events a micro-batch, as in the live learner

OnProgress = Callable[[int, int, dict[str, Prequential]], None]  # events done, of how many, rankings so far
Each = Callable[
    [int, RankedEvent, dict[str, float]], None
]  # place in its micro-batch, a scored event, its rank by ranking


def evaluate(
    data: DataSet,
    encode: Encoder,
    settings: LearnerSettings,
    progress: OnProgress | None = None,
    each: Each | None = None,
    pipelines: dict[str, RankingPipeline] | None = None,
) -> dict[str, Any]:
    """The report: events, scored, seconds, settings, and mrr, hr10 and ndcg10 by ranking and slice. `each` is told what
    is scored; `pipelines`: the first two of MODELS, for those who watch them."""
    began = time.monotonic()
    numerics(1)  # the number of threads changes sums, and with them the last bit of every result
    if pipelines is None:
        pipelines = {"full": new_pipeline(settings), "no_backbone": new_pipeline(settings, backbone=False)}
    learner = Learner(settings, pipelines, TOP)
    baselines = Baselines(repeats=settings.repeats)
    scores = Scores()
    first = int(len(data) * UNCOUNTED)
    done = 0
    for batch in micro_batches(data, encode):
        if done + BATCH > first and "frozen" not in pipelines:  # before the first that counts: all on the same events
            pipelines["frozen"] = frozen(pipelines["full"])
        for title in batch:
            if isinstance(title, TitleMetadata):
                baselines.launch(title.title)
        for place, event in enumerate(learner.observe(batch).ranked):
            if done >= first and not baselines.has_seen(event.user, event.title):
                ranks = scores.add(event, baselines)
                if each is not None:
                    each(place, event, ranks)
            baselines.count(event.user, event.title, event.ts)
            done += 1
        if progress is not None:
            progress(done, len(data), scores.rankings)
    scored = scores.rankings["full"].scored()["all"]
    candidates = int(np.count_nonzero(learner.stream_state.titles().candidate_V))
    head = {"events": len(data), "scored": scored, "seconds": round(time.monotonic() - began, 1)}
    return {
        **head,
        "data": data.name,
        "simulated": data.simulated,
        "settings": asdict(settings),
        **scores.report(candidates),
    }


class Scores:
    """What is measured of each way to rank: where the true title stood, by slice and by its age, and what was shown.
    Beside the ways, as `taken`: what viewers chose, a list of one."""

    def __init__(self) -> None:
        names = (*MODELS, *NAMES)
        self.rankings = {name: Prequential() for name in names}
        self.ages = {name: ByPopularity() for name in names}
        self.shown = {name: BeyondAccuracy() for name in (*names, TAKEN)}

    def add(self, event: RankedEvent, baselines: Baselines) -> dict[str, float]:
        """Score one event, which `baselines` have not counted yet; its rank by ranking."""
        ranks = event.ranks | baselines.rank(event.user, event.title, event.ts)
        for name, rank in ranks.items():
            self.rankings[name].add(rank, event.title_events, event.user_events)
            self.ages[name].add(rank, event.title_events)
        lists = {**event.best, **baselines.best(event.user, event.ts, TOP), TAKEN: [event.title]}
        for name, titles in lists.items():
            self.shown[name].add(titles, [baselines.title_events(title) for title in titles])
        return ranks

    def report(self, candidates: int) -> dict[str, Any]:
        """By measure and ranking; `candidates`: titles that could be shown at the end."""
        shown = {"top": TOP, "candidates": candidates, **beyond_accuracy.table(self.shown, candidates)}
        return {**table(self.rankings), "by_age": popularity_buckets.table(self.ages), "shown": shown}


class RankFile:
    """A CSV file with one row for each scored event: user, title, time (ms) and rank by variant, digit for digit, so
    that two versions of the code can be compared with `diff`. Without a path it writes nothing."""

    def __init__(self, path: Path | None) -> None:
        self._file = None if path is None else path.open("w", newline="")
        self._header = False

    def __enter__(self) -> "RankFile":
        return self

    def __exit__(self, *_error: object) -> None:
        if self._file is not None:
            self._file.close()

    def __call__(self, _place: int, event: RankedEvent, ranks: dict[str, float]) -> None:
        if self._file is None:
            return
        write = csv.writer(self._file, lineterminator="\n").writerow
        if not self._header:
            write(["user", "title", "ts", *ranks])
            self._header = True
        write([event.user, event.title, event.ts, *map(repr, ranks.values())])


def frozen(pipeline: RankingPipeline) -> RankingPipeline:
    """The contender as it is now; it learns no more."""
    still = copy.copy(pipeline)
    still.ranker = copy.deepcopy(pipeline.ranker)
    still.sequence = copy.deepcopy(pipeline.sequence)
    still.learns = False
    return still


def micro_batches(data: DataSet, encode: Encoder, most: int = HISTORY) -> Iterator[list[TitleMetadata | UserUpdate]]:
    """The data set as the learner's micro-batches: launches that are due, then the users' histories, of at most `most`
    earlier events, with what is new."""
    titles = data.launches_with_events()
    launched = _launched(titles, encode)
    due = [int(launch.ts or 0) for launch in titles]
    histories: dict[str, list[tuple[str, int, int]]] = {}
    at = 0
    for start in range(0, len(data), BATCH):
        batch: list[TitleMetadata | UserUpdate] = []
        new: dict[str, list[int]] = {}
        for k in range(start, min(start + BATCH, len(data))):
            event = data.event(k)
            while at < len(due) and due[at] < event.ts:
                batch.append(launched[at])
                at += 1
            histories.setdefault(event.user, []).append((event.title, event.ts, action_code(event)))
            new.setdefault(event.user, []).append(k)
        for user, order in new.items():
            history = histories[user] = histories[user][-most - len(order) :]
            names, times, actions = zip(*history, strict=True)
            places = range(len(history) - len(order), len(history))
            batch.append(UserUpdate(user, names, times, actions, places, order))
        yield batch


def _launched(titles: list[Launch], encode: Encoder) -> list[TitleMetadata]:
    texts = [launch_text(title.name, title.genres, title.overview, title.text) for title in titles]
    vectors = encode(texts)
    nothing = np.zeros(0, np.float32)
    return [
        TitleMetadata(t.title, vector if vector.any() else nothing, t.genres, t.year, t.released, t.withdrawn)
        for t, vector in zip(titles, vectors, strict=True)
    ]


def write(report: dict[str, Any], path: Path) -> None:
    """The report as JSON."""
    path.write_text(json.dumps(report, indent=1, default=str) + "\n")


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The report for reading."""
    yield f"{report['data']}: {report['events']:,} events, {report['scored']:,} scored, {report['seconds']:.0f} s"
    yield f"{'MRR':<20}{'all':>9}{'new titles':>12}{'no event':>10}{'new users':>11}{'HR@10':>9}{'NDCG@10':>9}"
    for name, by_slice in report["mrr"].items():
        cells = [by_slice[key] for key in ("all", "new_titles", "unseen_titles", "new_users")]
        cells += [report["hr10"][name]["all"], report["ndcg10"][name]["all"]]
        shown = [f"{_cell(cell):>{w}}" for cell, w in zip(cells, (9, 12, 10, 11, 9, 9), strict=True)]
        yield f"{name:<20}" + "".join(shown)
    yield ""
    yield from _ages(report["by_age"])
    yield ""
    yield from _shown(report["shown"])


def _ages(by_age: dict[str, Any]) -> Iterator[str]:
    yield f"{'events of the title':<20}" + "".join(f"{age:>9}" for age in BUCKETS) * 2
    yield f"{'MRR, then HR@10':<20}" + "".join(f"{count:>9,}" for count in by_age["scored"].values())
    for name, mrr in by_age["mrr"].items():
        cells = [*mrr.values(), *by_age["hr10"][name].values()]
        yield f"{name:<20}" + "".join(f"{_cell(cell):>9}" for cell in cells)


def _shown(shown: dict[str, Any]) -> Iterator[str]:
    yield f"the first {shown['top']} of a list, of {shown['candidates']:,} titles:"
    yield f"{'':<20}{'coverage':>9}{'events of a title':>19}{'lists with a new title':>24}"
    for name, coverage in shown["coverage"].items():
        popularity = shown["popularity"][name]
        events = "-" if popularity is None else f"{popularity:,.1f}"
        yield f"{name:<20}{_cell(coverage):>9}{events:>19}{_cell(shown['with_new'][name]):>24}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
