"""`premiere evaluate`: a data set as a stream, each event ranked before it is learned, the simple ways beside the
model.

The learner is the live one, fed with the data set's own order and launch rule instead of a log; the first fifth of the
events is learned and not counted. Beside it, over the same memory: the ranker on counters and text alone
(`features_only`) and the model as it stood after the first fifth (`frozen`; counters and histories run on).
"""

import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.text import Encoder, launch_text
from infra.datasets import DataSet
from infra.learning import numerics
from model.baselines import NAMES, Baselines
from model.contender import Contender
from model.learner import Acted, Learner, LearnerSettings, Ranked, new_contender
from model.memory import Launched
from model.metrics import Prequential, table
from streaming.records import HISTORY, Launch, action_code

UNCOUNTED: Final = 0.2  # share of the events that is learned before the first is scored
MODELS: Final = ("premiere", "features_only", "frozen")
BATCH: Final = 64  # events a micro-batch, as in the live learner

Progress = Callable[[int, int, dict[str, Prequential]], None]  # events done, of how many, rankings so far


def evaluate(
    data: DataSet, encode: Encoder, settings: LearnerSettings, progress: Progress | None = None
) -> dict[str, Any]:
    """The report: events, scored, seconds, settings, and mrr, hr10 and ndcg10 by ranking and slice."""
    began = time.monotonic()
    numerics(1)  # the number of threads changes sums, and with them the last bit of every result
    contenders = {"premiere": new_contender(settings), "features_only": new_contender(settings, backbone=False)}
    learner = Learner(settings, contenders)
    baselines = Baselines(repeats=settings.repeats)
    rankings = {name: Prequential() for name in (*MODELS, *NAMES)}
    first = int(len(data) * UNCOUNTED)
    done = 0
    for batch in micro_batches(data, encode):
        if done >= first and "frozen" not in contenders:
            contenders["frozen"] = frozen(contenders["premiere"])
        for title in batch:
            if isinstance(title, Launched):
                baselines.launch(title.title)
        for event in learner.observe(batch).ranked:
            _score(event, done >= first, rankings, baselines, settings.repeats)
            done += 1
        if progress is not None:
            progress(done, len(data), rankings)
    scored = rankings["premiere"].scored()["all"]
    head = {"events": len(data), "scored": scored, "seconds": round(time.monotonic() - began, 1)}
    return {**head, "data": data.name, "simulated": data.simulated, "settings": asdict(settings), **table(rankings)}


def frozen(contender: Contender) -> Contender:
    """The contender as it is now; it learns no more."""
    still = copy.copy(contender)
    still.ranker = copy.deepcopy(contender.ranker)
    still.sequence = copy.deepcopy(contender.sequence)
    still.learns = False
    return still


def micro_batches(data: DataSet, encode: Encoder) -> Iterator[list[Launched | Acted]]:
    """The data set as the learner's micro-batches: launches that are due, then the users' histories with what is
    new."""
    titles = data.launches_with_events()
    launched = _launched(titles, encode)
    due = [int(launch.ts or 0) for launch in titles]
    histories: dict[str, list[tuple[str, int, int]]] = {}
    at = 0
    for start in range(0, len(data), BATCH):
        batch: list[Launched | Acted] = []
        new: dict[str, list[int]] = {}
        for k in range(start, min(start + BATCH, len(data))):
            event = data.event(k)
            while at < len(due) and due[at] < event.ts:
                batch.append(launched[at])
                at += 1
            histories.setdefault(event.user, []).append((event.title, event.ts, action_code(event)))
            new.setdefault(event.user, []).append(k)
        for user, order in new.items():
            history = histories[user] = histories[user][-HISTORY - len(order) :]
            names, times, actions = zip(*history, strict=True)
            places = range(len(history) - len(order), len(history))
            batch.append(Acted(user, names, times, actions, places, order))
        yield batch


def _launched(titles: list[Launch], encode: Encoder) -> list[Launched]:
    texts = [launch_text(title.name, title.genres, title.overview, title.text) for title in titles]
    vectors = encode(texts)
    nothing = np.zeros(0, np.float32)
    return [
        Launched(t.title, vector if vector.any() else nothing, t.genres, t.year, t.released, t.withdrawn)
        for t, vector in zip(titles, vectors, strict=True)
    ]


def _score(event: Ranked, counts: bool, rankings: dict[str, Prequential], baselines: Baselines, repeats: bool) -> None:
    if counts and (repeats or not baselines.has_seen(event.user, event.title)):
        ranks = event.ranks | baselines.rank(event.user, event.title, event.ts)
        for name, rank in ranks.items():
            rankings[name].add(rank, event.title_events, event.user_events)
    baselines.count(event.user, event.title, event.ts)


def write(report: dict[str, Any], path: Path) -> None:
    """The report as JSON."""
    path.write_text(json.dumps(report, indent=1, default=str) + "\n")


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The report for reading."""
    yield f"{report['data']}: {report['events']:,} events, {report['scored']:,} scored, {report['seconds']:.0f} s"
    yield f"{'MRR':<20}{'all':>9}{'new titles':>12}{'no event':>10}{'new users':>11}{'HR@10':>9}{'NDCG@10':>9}"
    for name, by_slice in report["mrr"].items():
        cells = [by_slice[key] for key in ("all", "new_titles", "no_event_titles", "new_users")]
        cells += [report["hr10"][name]["all"], report["ndcg10"][name]["all"]]
        shown = [
            f"{'-' if cell is None else f'{cell:.4f}':>{w}}"
            for cell, w in zip(cells, (9, 12, 10, 11, 9, 9), strict=True)
        ]
        yield f"{name:<20}" + "".join(shown)
