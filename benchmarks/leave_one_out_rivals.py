"""RecTools' SASRec and implicit's ALS on a given split; `benchmarks.leave_one_out` starts it in their environment.

    python leave_one_out_rivals.py split.csv evaluations.jsonl '{"sasrec": {...}, "als": {...}}'

The split has one row per event: user, item, position and part (train, validation, test). The program writes one line of
JSON after each epoch of SASRec and for each number of factors of ALS: the training time so far in wall and CPU seconds,
and NDCG@10 and HR@10 of the validation and test targets. RecTools needs NumPy 1, so this file runs in an environment of
its own and imports nothing from this project. It imports both libraries inside functions, so that the metrics can be
tested without them.
"""

import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch

LIST_SIZE: Final = 10
KNOWN_PARTS: Final = {"validation": ["train"], "test": ["train", "validation"]}  # known when a target is ranked
FIRST_DAY: Final = pd.Timestamp("2026-01-01")


def ranking_metrics(top: pd.DataFrame, targets: pd.DataFrame) -> dict[str, float]:
    """NDCG@10 and HR@10 of the targets (user, item) in their users' top ten (user, item, rank from 1)."""
    rank_N = targets.merge(top, on=["user", "item"], how="left")["rank"].to_numpy(float)
    gain_N = np.where(np.isnan(rank_N), 0.0, 1 / np.log2(np.nan_to_num(rank_N, nan=1.0) + 1))
    return {"ndcg10": float(gain_N.mean()), "hr10": float((~np.isnan(rank_N)).mean())}


def rectools_dataset(rows: pd.DataFrame) -> Any:
    """The rows as a RecTools dataset. Position n becomes day n, so that RecTools sorts as we do."""
    from rectools import Columns
    from rectools.dataset import Dataset

    day = FIRST_DAY + pd.to_timedelta(rows["position"], "D")
    columns = {Columns.User: rows["user"], Columns.Item: rows["item"], Columns.Datetime: day, Columns.Weight: 1.0}
    return Dataset.construct(pd.DataFrame(columns))


def trainer() -> Any:
    """A trainer on the CPU that writes nothing."""
    from pytorch_lightning import Trainer

    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return Trainer(max_epochs=1, accelerator="cpu", **dict.fromkeys(quiet, False))


def sasrec(events: pd.DataFrame, epochs: int, **settings: Any) -> Iterator[dict[str, Any]]:
    """An evaluation after each epoch. The history of a test target includes the user's validation target."""
    from rectools import Columns
    from rectools.models import SASRecModel

    names = {Columns.User: "user", Columns.Item: "item", Columns.Rank: "rank"}
    model = SASRecModel(epochs=1, get_trainer_func=trainer, **settings)
    known = {part: rectools_dataset(events[events.part.isin(parts)]) for part, parts in KNOWN_PARTS.items()}
    wall = cpu = 0.0
    for epoch in range(1, epochs + 1):
        began, began_cpu = time.monotonic(), time.process_time()
        if epoch == 1:
            model.fit(known["validation"])
        else:
            model.fit_partial(known["validation"], min_epochs=1, max_epochs=1)
        wall, cpu = wall + time.monotonic() - began, cpu + time.process_time() - began_cpu
        metrics = {}
        for part, dataset in known.items():
            targets = events[events.part == part]
            top = model.recommend(targets.user.unique(), dataset, LIST_SIZE, True, on_unsupported_targets="ignore")
            metrics[part] = ranking_metrics(top.rename(columns=names)[["user", "item", "rank"]], targets)
        yield {"epoch": epoch, "seconds": wall, "cpu_seconds": cpu, **metrics}


def als(events: pd.DataFrame, factors: list[int], **settings: Any) -> Iterator[dict[str, Any]]:
    """An evaluation for each number of factors. A user's factors are recomputed from the events known at that time."""
    from implicit.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    user_N, users = pd.factorize(events.user)
    item_N, items = pd.factorize(events.item)
    for factor_count in factors:
        known = {}
        for part, parts in KNOWN_PARTS.items():
            inside = events.part.isin(parts).to_numpy()
            ones = np.ones(int(inside.sum()), np.float32)
            known[part] = csr_matrix((ones, (user_N[inside], item_N[inside])), (len(users), len(items)))
        began, began_cpu = time.monotonic(), time.process_time()
        model = AlternatingLeastSquares(factors=factor_count, num_threads=1, random_state=0, **settings)
        model.fit(known["validation"], show_progress=False)
        training_time = {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - began_cpu}
        metrics = {}
        for part, matrix in known.items():
            targets = events[events.part == part]
            target_user_N = user_N[(events.part == part).to_numpy()]
            top_NT, _ = model.recommend(target_user_N, matrix[target_user_N], LIST_SIZE, True, recalculate_user=True)
            user_names = targets.user.to_numpy().repeat(LIST_SIZE)
            ranks = np.tile(np.arange(1, LIST_SIZE + 1), len(targets))
            top = pd.DataFrame({"user": user_names, "item": np.asarray(items)[top_NT.ravel()], "rank": ranks})
            metrics[part] = ranking_metrics(top, targets)
        yield {"factors": factor_count, **training_time, **metrics}


def main(split: Path, output: Path, settings: dict[str, dict[str, Any]]) -> None:
    """Train each model in `settings` and write its evaluations to `output`, one per line."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    events = pd.read_csv(split, dtype={"user": str, "item": str})
    with output.open("w") as file:
        for name, train in (("als", als), ("sasrec", sasrec)):
            for evaluation in train(events, **settings[name]) if name in settings else ():
                file.write(json.dumps({"rival": name, **evaluation}) + "\n")
                file.flush()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
