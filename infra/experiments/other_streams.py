"""The learner on other datasets, and the learner's throughput.

- `globo`: clicks of a news portal. Articles have no text. Half of a day's clicks go to articles of that day, so the
  popularity of the last hour is a strong baseline. The stream starts on one day with an untrained model.
- `ml-1m`: the file has the order of each user's events and the time of the last one, but no other times. The stream
  is therefore synthetic: the first MAX_USER_EVENTS events of each user, half a minute apart, ending at that time. The
  results concern the order of users' events, not time.
- throughput: events per second and memory of one thread, by default, without replay, and under load shedding.
"""

import time
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pandas as pd

from features.text_encoders import Encoder
from infra.data.datasets import Dataset, from_tables
from infra.data.tables import Table
from infra.experiments.backbone_ranks import BackboneRanks
from infra.experiments.baseline_report import against_baselines
from infra.experiments.harness import run_prequential
from infra.experiments.machine import resident_mib
from infra.experiments.prequential import BATCH_EVENTS, micro_batches
from infra.progress import Reporter
from model.learner import Learner
from model.pipeline import new_pipeline
from model.settings import LearnerSettings
from streaming.state.log_settings import LogSettings

GLOBO_DAY: Final = "2017-10-10"  # first day of the globo stream
MAX_USER_EVENTS: Final = 50  # per user of ml-1m
EVENT_GAP_S: Final = 30  # between two events of a user of ml-1m
TARGET_EVENTS_PER_S: Final = 1_000
KEEPING_UP: Final = f"keeping up with {TARGET_EVENTS_PER_S:,}/s"
SAMPLE_EVENTS: Final = 10_000  # between two samples of speed and memory


def globo(path: Path, limit: int | None, day: str = GLOBO_DAY) -> Dataset:
    """The first `limit` clicks from that day (UTC) on. Only articles with clicks among them are candidates."""
    clicks = pd.read_parquet(path, columns=["user", "item", "ts_ms"])
    clicks = clicks[clicks.ts_ms >= pd.Timestamp(day).value // 10**6][:limit]
    rows = pd.DataFrame({"user": clicks.user, "item": clicks.item, "ts": clicks.ts_ms / 1000})
    return from_tables(Table(str(path), rows), None, name="globo")


def ml_1m(folder: Path) -> Dataset:
    """The synthetic stream of the users' sequences."""
    rows = pd.read_parquet(folder / "ml1m_ordered.parquet")
    rows = rows[rows.pos < MAX_USER_EVENTS]
    last = rows.groupby("user").pos.transform("max")
    events = pd.DataFrame(
        {"user": rows.user, "item": rows.item, "ts": rows.user_last_ts - EVENT_GAP_S * (last - rows.pos)}
    )
    columns = ["item", "title", "genres"]
    films = pd.read_csv(folder / "movies.dat", sep="::", engine="python", names=columns, encoding="latin-1", dtype=str)
    texts = pd.read_csv(folder / "overviews.csv", dtype=str)[["item", "year", "overview", "release_date"]]
    titles = films.merge(texts, on="item", how="left")
    return from_tables(Table("ml-1m", events), Table("movies.dat", titles), name="ml-1m in users' order")


def compare(data: Dataset, encode: Encoder, settings: LearnerSettings, progress: Reporter) -> dict[str, Any]:
    """The full model, the model without a backbone, and the baselines, with paired differences."""
    full = new_pipeline(settings)
    learner = Learner(settings, {"full": full, "no_backbone": new_pipeline(settings, backbone=False)})
    backbone_ranks = BackboneRanks({"full": full}, settings.repeats)
    recorded = run_prequential(data, encode, learner, progress, [backbone_ranks], with_baselines=True)
    return {
        "events": len(data), "scored": len(recorded), "users": len(set(data.user.tolist())),
        "titles": len(set(data.title.tolist())), **against_baselines(recorded, ["no_backbone"]),
    }  # fmt: skip


def throughput(
    data: Dataset, encode: Encoder, settings: LearnerSettings, minutes: float, progress: Reporter
) -> dict[str, list[dict[str, float]]]:
    """Samples of the learner's speed and memory by mode: `minutes` / 4 by default, `minutes` / 4 without replay, then
    `minutes` with the load shedding that TARGET_EVENTS_PER_S requires."""
    learner, batches, done = Learner(settings), micro_batches(data, encode), 0
    samples: dict[str, list[dict[str, float]]] = {}
    idle, loaded = LogSettings().load_level(0), LogSettings().load_level(TARGET_EVENTS_PER_S)
    modes = {"default": (idle, 15), "no replay": (idle._replace(replay_ratio=0.0), 15), KEEPING_UP: (loaded, 60)}
    for name, (level, seconds_per_minute) in modes.items():
        limit_s = minutes * seconds_per_minute
        samples[name], sampled_at, busy_s = [], done, 0.0
        wall_s = cpu_s = 0.0  # since the last sample
        while joined := list(islice(batches, max(1, round(level.batch_events / BATCH_EVENTS)))):
            batch = [item for micro_batch in joined for item in micro_batch]
            began, began_cpu = time.perf_counter(), time.process_time()
            done += len(learner.observe(batch, level.replay_ratio, level.eval_ratio).ranked)
            wall_s, cpu_s = wall_s + time.perf_counter() - began, cpu_s + time.process_time() - began_cpu
            events = done - sampled_at
            if events < SAMPLE_EVENTS and busy_s + wall_s < limit_s:
                continue
            speed = {"events": done, "events_per_s": events / wall_s, "events_per_cpu_s": events / cpu_s}
            users = len(learner.stream_state.user_store.user_indices)
            samples[name].append({**speed, "resident_mib": resident_mib(), "users": users})
            progress.line(f"{name}: {done:,} events, {speed['events_per_s']:,.0f} events/s, {resident_mib():,.0f} MiB")
            sampled_at, busy_s, wall_s, cpu_s = done, busy_s + wall_s, 0.0, 0.0
            if busy_s >= limit_s:
                break
    return samples
