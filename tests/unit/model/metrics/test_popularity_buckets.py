"""Metrics by popularity bucket: known answers."""

import math

import pytest

from model.metrics.popularity_buckets import POPULARITY_BUCKETS, ByPopularity, popularity_report


@pytest.mark.parametrize(
    ("events", "bucket"), [(0, "0"), (1, "1-4"), (4, "1-4"), (5, "5-19"), (19, "5-19"), (20, "20+"), (9999, "20+")]
)
def test_title_belongs_to_one_popularity_bucket(events: int, bucket: str) -> None:
    metrics = ByPopularity()
    metrics.add(4.0, events)
    assert [name for name, count in metrics.scored().items() if count] == [bucket]
    assert metrics.report()["mrr"] == {name: 0.25 if name == bucket else None for name in POPULARITY_BUCKETS}


def test_bucket_metrics_are_means_of_the_buckets_events() -> None:
    metrics = ByPopularity()
    for rank, events in ((1, 0), (math.inf, 0), (2, 3), (10, 7), (11, 8), (5, 500)):
        metrics.add(rank, events)
    found = popularity_report({"model": metrics})
    assert found["scored"] == {"0": 2, "1-4": 1, "5-19": 2, "20+": 1}
    assert found["mrr"]["model"] == pytest.approx({"0": 0.5, "1-4": 0.5, "5-19": (0.1 + 1 / 11) / 2, "20+": 0.2})
    assert found["hr10"]["model"] == {"0": 0.5, "1-4": 1.0, "5-19": 0.5, "20+": 1.0}
