"""The same learner on other streams: news clicks without text, and films in an order without times.

- `globo`: clicks of a news portal. Nothing is known of an article but its clicks, half of a day's clicks go to articles
  of that day, and the popularity of the last hour is hard to beat. A slice of one later day, learned from nothing.
- `ml-1m`: the file tells each user's order and the time of the user's last event, and no other. So the stream is made
  up: a user's first FIRST events, half a minute apart, the last of them at that time. Who came before whom is known,
  what happened meanwhile is not: these are numbers about users' orders, not about time.
- rates: the learner alone at full speed, one thread, with its memory; then with what it gives up under load.
"""

import time
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pandas as pd

from features.text_encoders import Encoder
from infra.data.datasets import DataSet, from_tables
from infra.data.tables import Table
from infra.experiments.evaluate import BATCH, micro_batches
from infra.experiments.harness import ALONE, Recorded, Say, stream, watched
from infra.experiments.machine import resident_mib
from model.learner import Learner, LearnerSettings
from model.metrics.baselines import NAMES, Baselines
from streaming.state.log_learner import LogSettings

HOUR: Final = 1 / 24  # days: the window of popularity for news
DAY: Final = "2017-10-10"  # of globo
FIRST: Final = 50  # events of each user of ml-1m
APART: Final = 30  # seconds between two of them
FAST: Final = 1_000  # events a second
KEEPING_UP: Final = f"keeping up with {FAST:,}/s"
LOOK: Final = 10_000  # events between two looks at speed and memory


def globo(path: Path, most: int | None, day: str = DAY) -> DataSet:
    """The first so many clicks of that day (UTC) and the days after it. Their articles are the candidates."""
    clicks = pd.read_parquet(path, columns=["user", "item", "ts_ms"])
    clicks = clicks[clicks.ts_ms >= pd.Timestamp(day).value // 10**6][:most]
    rows = pd.DataFrame({"user": clicks.user, "item": clicks.item, "ts": clicks.ts_ms / 1000})
    return from_tables(Table(str(path), rows), None, name="globo")


def ml_1m(folder: Path) -> DataSet:
    """The stream that is made up of users' orders."""
    rows = pd.read_parquet(folder / "ml1m_ordered.parquet")
    rows = rows[rows.pos < FIRST]
    last = rows.groupby("user").pos.transform("max")
    events = pd.DataFrame({"user": rows.user, "item": rows.item, "ts": rows.user_last_ts - APART * (last - rows.pos)})
    columns = ["item", "title", "genres"]
    films = pd.read_csv(folder / "movies.dat", sep="::", engine="python", names=columns, encoding="latin-1", dtype=str)
    texts = pd.read_csv(folder / "overviews.csv", dtype=str)[["item", "year", "overview", "release_date"]]
    titles = films.merge(texts, snapshot="item", how="left")
    return from_tables(Table("ml-1m", events), Table("movies.dat", titles), name="ml-1m in users' order")


def compare(data: DataSet, encode: Encoder, settings: LearnerSettings, say: Say, days: float = 30) -> dict[str, Any]:
    """The model, the same without its backbone, its backbone alone, and the simple ways, with paired intervals."""
    pipelines = {"full": watched(settings), "no_backbone": watched(settings, backbone=False)}
    baselines = Baselines(days=days, repeats=settings.repeats)
    recorded = stream(data, encode, Learner(settings, dict(pipelines)), say, baselines)
    return {
        "events": len(data), "scored": len(recorded), "users": len(set(data.user.tolist())),
        "titles": len(set(data.title.tolist())), "days": days, **report(recorded),
    }  # fmt: skip


def report(recorded: Recorded) -> dict[str, Any]:
    """Rankings, what the backbone adds, and how far the best simple way lies below."""
    mrr = {name: recorded.mrr(name) for name in recorded.ranks}
    best = max(NAMES, key=lambda name: mrr[name]["all"] or 0.0)
    pairs = [("full", "no_backbone"), ("full", best), ("full" + ALONE, best)]
    return {
        "mrr": mrr,
        "best": best,
        "gains": [{"of": a, "over": b, "gain": recorded.gain(a, b)} for a, b in pairs],
        "curve": recorded.curve(),
    }


def rates(
    data: DataSet, encode: Encoder, settings: LearnerSettings, minutes: float, say: Say
) -> dict[str, list[dict[str, float]]]:
    """Looks at the learner alone: for a quarter of `minutes` each as it is and without replay, then for `minutes` as it
    keeps up with FAST events a second."""
    learner, batches, done = Learner(settings), micro_batches(data, encode), 0
    looks: dict[str, list[dict[str, float]]] = {}
    as_it_is, fast = LogSettings().pace(0), LogSettings().pace(FAST)
    modes = {"as it is": (as_it_is, 15), "no replay": (as_it_is._replace(replay=0.0), 15), KEEPING_UP: (fast, 60)}
    for name, (pace, seconds) in modes.items():
        limit = minutes * seconds
        looks[name], at, busy = [], done, 0.0
        wall = cpu = 0.0  # since the last look
        while joined := list(islice(batches, max(1, round(pace.batch / BATCH)))):
            batch = [item for one in joined for item in one]
            began, began_cpu = time.perf_counter(), time.process_time()
            done += len(learner.observe(batch, pace.replay, pace.ranked).ranked)
            wall, cpu = wall + time.perf_counter() - began, cpu + time.process_time() - began_cpu
            if done - at < LOOK and busy + wall < limit:
                continue
            speed = {"events": done, "rate": (done - at) / wall, "cpu_rate": (done - at) / cpu}
            looks[name].append(
                {**speed, "resident": resident_mib(), "users": len(learner.stream_state.user_store.user_indices)}
            )
            say(f"{name}: {done:,} events, {speed['rate']:,.0f} a second, {resident_mib():,.0f} MiB")
            at, busy, wall, cpu = done, busy + wall, 0.0, 0.0
            if busy >= limit:
                break
    return looks
