"""Leave-one-out on ML-100K beside RecTools' SASRec and implicit's ALS, one after the other on one thread each;
`python -m benchmarks.epochs --rivals PYTHON`.

    ours    `premiere evaluate --protocol leave-one-out`, as it is set, ids alone
    SASRec  RecTools' own, of our width and depth and as it comes (256 wide), softmax over all titles
    ALS     implicit's, of several numbers of factors

PYTHON (or RECTOOLS_PYTHON) is an interpreter with `pip install 'rectools[torch]' implicit`. All get one split. Each
stops by its own validation NDCG@10 and tells the test titles' HR@10 at that point. The wall time asked about is ours
until the validation HR@10 first reaches the best of theirs, beside theirs until that best; looks at the titles are not
timed on either side.
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

from benchmarks.runner import Row, publish, row
from infra.data.download import fetch
from infra.experiments import leave_one_out as loo
from infra.experiments import user_sequences
from infra.settings import load as load_settings

SASREC: Final = {"loss": "softmax", "session_max_len": loo.NETWORK.history}
SAME: Final = {"n_blocks": loo.NETWORK.blocks, "n_heads": loo.NETWORK.heads, "n_factors": loo.NETWORK.width}
ALS: Final = {"factors": [32, 64, 128], "iterations": 30, "regularization": 0.01, "alpha": 1.0}

Look = Mapping[str, Any]


def split_file(parts: loo.Split, titles: Sequence[str], path: Path) -> None:
    """The split as the rivals read it."""
    users = [user for user, _ in parts.asked["test"][0]]
    rows = [(user, titles[v], place, "train") for user, o in parts.train.items() for place, v in enumerate(o.tolist())]
    for part in ("validation", "test"):
        asked = zip(users, *parts.asked[part], strict=True)
        rows += [(user, titles[target], len(order_L), part) for user, (_, order_L), target in asked]
    pd.DataFrame(rows, columns=["user", "item", "place", "part"]).to_csv(path, index=False)


def rival(python: str, split: Path, settings: Mapping[str, Any]) -> list[Look]:
    """Every look of the rivals named."""
    looks = split.with_suffix(".jsonl")
    script = Path(__file__).with_name("epochs_rivals.py")
    quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    subprocess.run([python, str(script), str(split), str(looks), json.dumps(settings)], check=True,
                   env=os.environ | quiet, stderr=subprocess.DEVNULL)  # fmt: skip
    return [json.loads(line) for line in looks.read_text().splitlines()]


def best(looks: Sequence[Look], measure: str = "ndcg10") -> Look:
    """The look with the best validation titles."""
    return max(looks, key=lambda look: look["validation"][measure])


def rows_of(case: str, ours: Mapping[str, Any], rivals: Mapping[str, Sequence[Look]]) -> list[Row]:
    """HR@10 of the test titles, and seconds until the validation HR@10 of each rival's best is reached."""
    own = ours["test"]["hr10"]
    rows = [row(case, "ours, test HR@10", [own], "HR@10")]
    for name, looks in rivals.items():
        chosen, top = best(looks), best(looks, "hr10")
        hr = chosen["test"]["hr10"]
        rows.append(row(case, f"{name}, test HR@10", [hr], "HR@10", hr / own))
        reached = [look for look in ours["curve"] if look["hr10"] >= top["validation"]["hr10"]]
        for clock in ("seconds", "cpu_seconds"):
            word = "s" if clock == "seconds" else "CPU s"
            rows.append(row(case, f"{name}, to its best", [top[clock]], word))
            taken = reached[0][clock] if reached else float("inf")
            rows.append(row(case, f"ours, to {name}'s best", [taken], word, taken / top[clock]))
    return rows


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rivals", metavar="PYTHON", default=os.environ.get("RECTOOLS_PYTHON"))
    options.add_argument("--events", type=Path, help="other events than those that `premiere data` fetches")
    options.add_argument("--epochs", type=int, default=60, help="of RecTools' SASRec")
    options.add_argument("--quick", action="store_true", help="three epochs of each")
    options.add_argument("--wide", action="store_true", help="RecTools' SASRec as it comes too, which is long")
    chosen = options.parse_args()
    if not chosen.rivals:
        sys.exit("--rivals names no Python that has RecTools and implicit: there is nothing to compare with.")
    world = load_settings()
    folder = fetch(world.data_dir).folder if chosen.events is None else None
    file = chosen.events or (folder / "events.parquet" if folder else sys.exit("No data could be fetched."))
    held = user_sequences.load(file)
    epochs = 3 if chosen.quick else chosen.epochs
    found = loo.report(held, None, print, settings=loo.EpochSettings(most=3 if chosen.quick else 100))
    rivals: dict[str, list[Look]] = {}
    with tempfile.TemporaryDirectory() as room:
        split = Path(room) / "split.csv"
        split_file(loo.split(held), held.titles, split)
        wanted: dict[str, dict[str, Any]] = {
            "ALS": {"als": ALS},
            "SASRec, same size": {"sasrec": SASREC | SAME | {"epochs": epochs}},
        }
        if chosen.wide:
            wanted["SASRec, as it comes"] = {"sasrec": SASREC | {"epochs": epochs}}
        for name, settings in wanted.items():
            print(name, flush=True)
            rivals[name] = rival(chosen.rivals, split, settings)
    publish("epochs", rows_of(f"{folder.name if folder else held.name}, leave one out", found, rivals))
