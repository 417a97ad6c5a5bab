"""The comparison with RecTools and implicit, on given evaluations."""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.leave_one_out import compare_with_rivals, write_split
from infra.experiments import leave_one_out as loo
from infra.experiments.user_sequences import UserSequences


def test_split_file_gives_rivals_the_same_split(tmp_path: Path) -> None:
    sequences = {"long": np.array([2, 0, 1]), "short": np.array([3])}
    parts = loo.split(UserSequences("x", True, list("abcd"), [""] * 4, sequences))
    write_split(parts, list("abcd"), tmp_path / "split.csv")
    rows = pd.read_csv(tmp_path / "split.csv")
    assert rows.columns.tolist() == ["user", "item", "position", "part"]
    assert rows.to_numpy().tolist() == [
        ["long", "c", 0, "train"],
        ["short", "d", 0, "train"],
        ["long", "a", 1, "validation"],
        ["long", "b", 2, "test"],
    ]


def test_rivals_are_compared_at_their_best_epoch() -> None:
    def epoch(seconds: float, ndcg: float, hr: float, test_hr: float) -> dict[str, object]:
        validation = {"ndcg10": ndcg, "hr10": hr}
        return {"seconds": seconds, "cpu_seconds": seconds, "validation": validation, "test": {"hr10": test_hr}}

    rival = [epoch(10, 0.1, 0.30, 0.5), epoch(20, 0.3, 0.28, 0.2), epoch(30, 0.2, 0.29, 0.4)]
    curve = [{"seconds": float(s), "cpu_seconds": float(s), "hr10": hr} for s, hr in ((1, 0.1), (4, 0.3), (9, 0.4))]
    rows = compare_with_rivals("case", {"test": {"hr10": 0.25}, "curve": curve}, {"rival": rival})
    found = {(row.variant, row.unit): (row.median, round(row.ratio, 6)) for row in rows}
    assert found["rival, test HR@10", "HR@10"] == (0.2, 0.8)  # at its best validation NDCG, whatever the test HR is
    assert found["rival, to its best", "s"][0] == 10  # its best validation HR
    assert found["ours, to rival's best", "s"] == (4, 0.4)
