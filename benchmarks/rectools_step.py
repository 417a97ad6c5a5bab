"""RecTools' own SASRec in its own training loop, one step for each line on stdin; for `benchmarks.training --rectools`.

    python rectools_step.py titles history width blocks batch negatives     (0 negatives: softmax over all titles)

RecTools needs NumPy 1, so it lives in an environment of its own and this file imports nothing of ours. Every window is
full: `batch` times `history` positions a step.
"""

import sys
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

HEADS, USERS = 2, 640


class Steps(Callback):
    """Lets a step begin when a line comes, and tells how many seconds this process worked for it."""

    def on_train_batch_start(self, trainer: Any, *rest: Any) -> None:
        if not sys.stdin.readline():
            sys.exit()
        self.begun = time.process_time()

    def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
        print(time.process_time() - self.begun, flush=True)


def data(titles: int, history: int) -> Dataset:
    """Zipf titles in full windows, and every title once, so that the catalogue is whole."""
    random = np.random.default_rng(1)
    weight_V = 1 / np.arange(1, titles + 1)
    drawn = random.choice(titles, (USERS, history + 1), p=weight_V / weight_V.sum())
    each = random.permutation(titles)
    each = np.concatenate([each, each[: -titles % (history + 1)]]).reshape(-1, history + 1)
    item_UL = np.concatenate([drawn, each])
    user_UL = np.repeat(np.arange(len(item_UL))[:, None], history + 1, 1)
    time = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.tile(np.arange(history + 1), len(item_UL)), "min")
    columns = {Columns.User: user_UL.ravel(), Columns.Item: item_UL.ravel(), Columns.Datetime: time, Columns.Weight: 1}
    return Dataset.construct(pd.DataFrame(columns))


def trainer() -> Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(max_epochs=10_000, accelerator="cpu", callbacks=[Steps()], **quiet)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    titles, history, width, blocks, batch, negatives = map(int, sys.argv[1:])
    loss: dict[str, Any] = {"loss": "sampled_softmax", "n_negatives": negatives} if negatives else {"loss": "softmax"}
    model = SASRecModel(
        n_blocks=blocks,
        n_heads=HEADS,
        n_factors=width,
        session_max_len=history,
        batch_size=batch,
        get_trainer_func=trainer,
        **loss,
    )
    model.fit(data(titles, history))
