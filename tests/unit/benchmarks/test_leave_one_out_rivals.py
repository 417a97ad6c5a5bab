"""The rivals' metrics by hand."""

import math

import pandas as pd
import pytest

from benchmarks.leave_one_out_rivals import ranking_metrics


def test_metrics_of_hits_and_misses() -> None:
    top = pd.DataFrame(
        [("u", "a", 1), ("u", "b", 2), ("v", "c", 1), ("v", "a", 3), ("w", "b", 1)], columns=["user", "item", "rank"]
    )
    # ranks 1 and 3; a miss, although another user has the title; a user without a list
    targets = pd.DataFrame({"user": ["u", "v", "w", "x"], "item": ["a", "a", "a", "a"]})
    found = ranking_metrics(top, targets)
    assert found["hr10"] == pytest.approx(2 / 4)
    assert found["ndcg10"] == pytest.approx((1 + 1 / math.log2(4)) / 4)
