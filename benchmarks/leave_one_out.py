"""Compares `premiere leave-one-out` on ML-100K with RecTools' SASRec and implicit's ALS, in quality and training time.

    ours    `premiere leave-one-out` with its default settings and ids only
    SASRec  RecTools' model with our width and depth; with --wide also with its own default width of 256; softmax over
            all titles
    ALS     implicit's model with several numbers of factors

All models get the same split and one thread each, one after the other. Each stops by its own validation NDCG@10 and
reports the HR@10 of the test targets at that point. For the training time, ours is measured until its validation HR@10
first reaches the best one of the rival, and the rival's until that best. Evaluations are not timed on either side.

PYTHON (or RECTOOLS_PYTHON) is an interpreter that has `rectools[torch]` and `implicit`.

    python -m benchmarks.leave_one_out --rivals PYTHON
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from benchmarks.runner import Row, make_row, save_results
from infra.data.download import download
from infra.experiments import leave_one_out as loo
from infra.experiments import user_sequences
from infra.experiments.user_sequences import UserSequences
from infra.progress import Reporter
from infra.settings import load

SASREC_SETTINGS: Final = {"loss": "softmax", "session_max_len": loo.NETWORK.max_history}
OUR_SIZE: Final = {"n_blocks": loo.NETWORK.blocks, "n_heads": loo.NETWORK.heads, "n_factors": loo.NETWORK.width}
ALS_SETTINGS: Final = {"factors": [32, 64, 128], "iterations": 30, "regularization": 0.01, "alpha": 1.0}
SINGLE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
MAX_EPOCHS: Final = 100  # of ours
QUICK_EPOCHS: Final = 3

Evaluation = Mapping[str, Any]  # a line of leave_one_out_rivals.py: training time so far, validation and test metrics


def write_split(parts: loo.Split, titles: Sequence[str], path: Path) -> None:
    """Write the split in the form that `leave_one_out_rivals.py` reads."""
    users = [user for user, _ in parts.held_out["test"][0]]
    rows = [
        (user, titles[v], position, "train")
        for user, title_L in parts.train.items()
        for position, v in enumerate(title_L.tolist())
    ]
    for part in ("validation", "test"):
        held_out = zip(users, *parts.held_out[part], strict=True)
        rows += [(user, titles[target], len(title_L), part) for user, (_, title_L), target in held_out]
    pd.DataFrame(rows, columns=["user", "item", "position", "part"]).to_csv(path, index=False)


def run_rival(python: str, split: Path, settings: Mapping[str, Any]) -> list[Evaluation]:
    """Train the models in `settings` and return all their evaluations."""
    output = split.with_suffix(".jsonl")
    script = Path(__file__).with_name("leave_one_out_rivals.py")
    command = [python, str(script), str(split), str(output), json.dumps(settings)]
    subprocess.run(command, check=True, env=os.environ | SINGLE_THREAD, stderr=subprocess.DEVNULL)
    return [json.loads(line) for line in output.read_text().splitlines()]


def best_evaluation(evaluations: Sequence[Evaluation], metric: str = "ndcg10") -> Evaluation:
    """The evaluation with the best validation metric."""
    return max(evaluations, key=lambda evaluation: evaluation["validation"][metric])


def compare_with_rivals(case: str, ours: Mapping[str, Any], rivals: Mapping[str, Sequence[Evaluation]]) -> list[Row]:
    """HR@10 of the test targets, and seconds until the best validation HR@10 of each rival is reached."""
    our_hr = ours["test"]["hr10"]
    rows = [make_row(case, "ours, test HR@10", [our_hr], "HR@10")]
    for name, evaluations in rivals.items():
        hr = best_evaluation(evaluations)["test"]["hr10"]
        rows.append(make_row(case, f"{name}, test HR@10", [hr], "HR@10", hr / our_hr))
        goal = best_evaluation(evaluations, "hr10")
        reached = [point for point in ours["curve"] if point["hr10"] >= goal["validation"]["hr10"]]
        for clock, unit in (("seconds", "s"), ("cpu_seconds", "CPU s")):
            rows.append(make_row(case, f"{name}, to its best", [goal[clock]], unit))
            seconds = reached[0][clock] if reached else float("inf")
            rows.append(make_row(case, f"ours, to {name}'s best", [seconds], unit, seconds / goal[clock]))
    return rows


def train_rivals(python: str, sequences: UserSequences, epochs: int, wide: bool) -> dict[str, list[Evaluation]]:
    """The evaluations of each rival."""
    settings: dict[str, dict[str, Any]] = {
        "ALS": {"als": ALS_SETTINGS},
        "SASRec, same size": {"sasrec": SASREC_SETTINGS | OUR_SIZE | {"epochs": epochs}},
    }
    if wide:
        settings["SASRec, default size"] = {"sasrec": SASREC_SETTINGS | {"epochs": epochs}}
    evaluations = {}
    with tempfile.TemporaryDirectory() as folder:
        split = Path(folder) / "split.csv"
        write_split(loo.split(sequences), sequences.titles, split)
        for name, models in settings.items():
            print(name, flush=True)
            evaluations[name] = run_rival(python, split, models)
    return evaluations


def main() -> None:
    """Measure and save the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rivals",
        metavar="PYTHON",
        default=os.environ.get("RECTOOLS_PYTHON"),
        help="interpreter that has RecTools and implicit",
    )
    parser.add_argument("--events", type=Path, help="events file; default: the dataset of `premiere download`")
    parser.add_argument("--epochs", type=int, default=60, help="epochs of RecTools' SASRec")
    parser.add_argument("--quick", action="store_true", help="3 epochs of each model")
    parser.add_argument("--wide", action="store_true", help="also train RecTools' SASRec in its default size (slow)")
    options = parser.parse_args()
    if not options.rivals:
        sys.exit("Nothing to compare with: give an interpreter that has RecTools and implicit with --rivals.")
    folder = download(load().data_dir).folder if options.events is None else None
    events = options.events or (folder / "events.parquet" if folder else None)
    if events is None:
        sys.exit("The dataset could not be downloaded: give an events file with --events.")
    sequences = user_sequences.load(events)
    settings = loo.EpochSettings(max_epochs=QUICK_EPOCHS if options.quick else MAX_EPOCHS)
    ours = loo.report(sequences, None, Reporter(), settings=settings)
    epochs = QUICK_EPOCHS if options.quick else options.epochs
    rivals = train_rivals(options.rivals, sequences, epochs, options.wide)
    name = folder.name if folder else sequences.name
    save_results("leave_one_out", compare_with_rivals(f"{name}, leave-one-out", ours, rivals))


if __name__ == "__main__":
    main()
