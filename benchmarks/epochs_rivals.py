"""RecTools' SASRec and implicit's ALS on a given split; for `benchmarks.epochs`, in a Python that has them.

    python epochs_rivals.py split.csv looks.jsonl '{"sasrec": {...}, "als": {...}}'

The split has a row an event: user, item, place and part (train, validation, test). After each epoch of SASRec, and for
each number of factors of ALS, a line of JSON: the seconds of training so far, on the wall and of the processor, and
NDCG@10 and HR@10 of the validation and the test titles. What RecTools needs (NumPy 1) is not ours: nothing of ours is
imported.
"""

import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from implicit.als import AlternatingLeastSquares
from pytorch_lightning import Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from scipy.sparse import csr_matrix

KNOWN = {"validation": ["train"], "test": ["train", "validation"]}
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def measures(best: pd.DataFrame, asked: pd.DataFrame) -> dict[str, float]:
    """NDCG@10 and HR@10 from the place of each asked title in its user's best ten (user, item, rank from 1)."""
    rank_N = asked.merge(best, on=["user", "item"], how="left")["rank"].to_numpy(float)
    gain_N = np.where(np.isnan(rank_N), 0.0, 1 / np.log2(np.nan_to_num(rank_N, nan=1.0) + 1))
    return {"ndcg10": float(gain_N.mean()), "hr10": float((~np.isnan(rank_N)).mean())}


def dataset(rows: pd.DataFrame) -> Dataset:
    """A place in the order for a day, so that RecTools sorts as we do."""
    day = pd.Timestamp("2026-01-01") + pd.to_timedelta(rows["place"], "D")
    columns = {Columns.User: rows["user"], Columns.Item: rows["item"], Columns.Datetime: day, Columns.Weight: 1.0}
    return Dataset.construct(pd.DataFrame(columns))


def trainer() -> Trainer:
    """On the CPU, with nothing written."""
    return Trainer(max_epochs=1, accelerator="cpu", **QUIET)


def sasrec(events: pd.DataFrame, epochs: int, **settings: Any) -> Iterator[dict[str, Any]]:
    """A look after each epoch; the user's order so far is what is asked from, the validation title included for the
    test."""
    model = SASRecModel(epochs=1, get_trainer_func=trainer, **settings)
    known = {part: dataset(events[events.part.isin(parts)]) for part, parts in KNOWN.items()}
    wall = cpu = 0.0
    for epoch in range(1, epochs + 1):
        began, began_cpu = time.monotonic(), time.process_time()
        if epoch == 1:
            model.fit(known["validation"])
        else:
            model.fit_partial(known["validation"], min_epochs=1, max_epochs=1)
        wall, cpu = wall + time.monotonic() - began, cpu + time.process_time() - began_cpu
        found = {}
        for part, of in known.items():
            asked = events[events.part == part]
            best = model.recommend(asked.user.unique(), of, 10, True, on_unsupported_targets="ignore")
            best = best.rename(columns={Columns.User: "user", Columns.Item: "item", Columns.Rank: "rank"})
            found[part] = measures(best[["user", "item", "rank"]], asked)
        yield {"epoch": epoch, "seconds": wall, "cpu_seconds": cpu, **found}


def als(events: pd.DataFrame, factors: list[int], **settings: Any) -> Iterator[dict[str, Any]]:
    """A look for each number of factors; each user's factors are made again from what is known when asked."""
    user_N, users = pd.factorize(events.user)
    item_N, items = pd.factorize(events.item)
    for many in factors:
        known = {}
        for part, parts in KNOWN.items():
            inside = events.part.isin(parts).to_numpy()
            ones = np.ones(int(inside.sum()), np.float32)
            known[part] = csr_matrix((ones, (user_N[inside], item_N[inside])), (len(users), len(items)))
        began, began_cpu = time.monotonic(), time.process_time()
        model = AlternatingLeastSquares(factors=many, num_threads=1, random_state=0, **settings)
        model.fit(known["validation"], show_progress=False)
        spent = {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - began_cpu}
        found = {}
        for part, matrix in known.items():
            asked = events[events.part == part]
            code_N = user_N[(events.part == part).to_numpy()]
            best_NT, _ = model.recommend(code_N, matrix[code_N], 10, True, recalculate_user=True)
            names = asked.user.to_numpy().repeat(10)
            ranks = np.tile(np.arange(1, 11), len(asked))
            best = pd.DataFrame({"user": names, "item": np.asarray(items)[best_NT.ravel()], "rank": ranks})
            found[part] = measures(best, asked)
        yield {"factors": many, **spent, **found}


def main(split: Path, looks: Path, settings: dict[str, dict[str, Any]]) -> None:
    """Each rival that settings name, line by line into `looks`."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    events = pd.read_csv(split, dtype={"user": str, "item": str})
    with looks.open("w") as file:
        for name, way in (("als", als), ("sasrec", sasrec)):
            for look in way(events, **settings[name]) if name in settings else ():
                file.write(json.dumps({"rival": name, **look}) + "\n")
                file.flush()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
