"""RecTools' SASRec in its own training loop, one step per line on stdin; `benchmarks.training --rectools` starts it.

    python rectools_step.py titles history width blocks batch negatives     (0 negatives: softmax over all titles)

It prints the CPU seconds of each step. RecTools needs NumPy 1, so this file runs in an environment of its own and
imports nothing from this project. It imports RecTools inside functions, so that its data can be tested without it.
Every window is full: `batch` times `history` positions per step.
"""

import sys
import time
import warnings
from typing import Any, Final

import numpy as np
import pandas as pd
import torch

HEADS: Final = 2
USERS: Final = 640  # with random titles
MAX_EPOCHS: Final = 10_000  # the parent process ends the training


def interactions(titles: int, history: int) -> pd.DataFrame:
    """Full windows of Zipf-distributed titles. Further users cover every title, so that the catalog is complete."""
    random = np.random.default_rng(1)
    weight_V = 1 / np.arange(1, titles + 1)
    zipf_UL = random.choice(titles, (USERS, history + 1), p=weight_V / weight_V.sum())
    all_titles = random.permutation(titles)
    filler = all_titles[: -titles % (history + 1)]
    covering_UL = np.concatenate([all_titles, filler]).reshape(-1, history + 1)
    title_UL = np.concatenate([zipf_UL, covering_UL])
    user_UL = np.repeat(np.arange(len(title_UL))[:, None], history + 1, 1)
    minutes = np.tile(np.arange(history + 1), len(title_UL))
    ts = pd.Timestamp("2026-01-01") + pd.to_timedelta(minutes, "min")
    return pd.DataFrame({"user": user_UL.ravel(), "title": title_UL.ravel(), "ts": ts})


def timed_trainer() -> Any:
    """A trainer that waits for a line before each step and prints the step's CPU seconds."""
    from pytorch_lightning import Callback, Trainer

    class TimedSteps(Callback):
        def on_train_batch_start(self, trainer: Any, *rest: Any) -> None:
            if not sys.stdin.readline():
                sys.exit()
            self.began = time.process_time()

        def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
            print(time.process_time() - self.began, flush=True)

    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    off = dict.fromkeys(quiet, False)
    return Trainer(max_epochs=MAX_EPOCHS, accelerator="cpu", callbacks=[TimedSteps()], **off)


def main() -> None:
    """Train until stdin ends."""
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    titles, history, width, blocks, batch, negatives = map(int, sys.argv[1:])
    loss: dict[str, Any] = {"loss": "sampled_softmax", "n_negatives": negatives} if negatives else {"loss": "softmax"}
    model = SASRecModel(
        n_blocks=blocks,
        n_heads=HEADS,
        n_factors=width,
        session_max_len=history,
        batch_size=batch,
        get_trainer_func=timed_trainer,
        **loss,
    )
    names = {"user": Columns.User, "title": Columns.Item, "ts": Columns.Datetime}
    table = interactions(titles, history).rename(columns=names)
    table[Columns.Weight] = 1
    model.fit(Dataset.construct(table))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main()
