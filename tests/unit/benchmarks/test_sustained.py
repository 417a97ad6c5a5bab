"""The measurements of the sustained benchmark, on samples and streams with known answers."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from benchmarks.sustained import (
    RunMeasurements,
    SystemSample,
    cores_used,
    cpu_seconds,
    growth_per_s,
    hourly_popularity_mrr,
    services_cpu_seconds,
    sustained_rows,
    topic_lag,
)
from infra.data.datasets import Dataset, from_tables
from infra.data.tables import Table
from infra.experiments.machine import resident_mib
from infra.monitor.lag import PartitionLag
from infra.monitor.metric_totals import MetricSums
from model.metrics.ranking import RANKING_METRICS, SLICES


def stream(events: Sequence[tuple[str, str, int]]) -> Dataset:
    table = pd.DataFrame(events, columns=["user", "item", "ts"])
    return from_tables(Table("events", table), None, name="few")


def sample(elapsed_s: float, sent: int, learned: int, learn_mib: float, learn_cpu: float) -> SystemSample:
    cpu = {"learn": learn_cpu, "benchmark": 0.0}
    return SystemSample(elapsed_s, sent, learned, 0, 0.0, 0.5, {"learn": learn_mib}, cpu)


def sums(mrr: float, scored: int) -> MetricSums:
    total, counts = np.zeros((len(RANKING_METRICS), len(SLICES))), np.zeros(len(SLICES))
    total[RANKING_METRICS.index("mrr"), SLICES.index("all")], counts[SLICES.index("all")] = mrr * scored, scored
    return MetricSums(total, counts)


def test_rising_lag_differs_from_constant_lag() -> None:
    warmup = [(0.0, 900.0), (1.0, 100.0)]  # the first half does not count
    assert growth_per_s([*warmup, *((float(s), 5.0 * s) for s in range(2, 20))]) == pytest.approx(5)
    assert growth_per_s([*warmup, *((float(s), 40.0) for s in range(2, 20))]) == pytest.approx(0, abs=1e-9)
    assert np.isnan(growth_per_s(warmup))


def test_topic_lag_sums_records_and_takes_the_longest_wait() -> None:
    lags = [
        PartitionLag("publish", "log", 0, 5, 10, 5, 2.0),
        PartitionLag("publish", "log", 1, 5, 8, 3, None),  # the broker did not return the time
        PartitionLag("publish", "other", 0, 0, 50, 50, 9.0),
    ]
    assert topic_lag(lags, "log") == (8, 2.0)
    assert topic_lag([], "log") == (0, 0.0)


def test_restarted_flow_needs_two_samples() -> None:
    before, now = sample(10, 0, 0, 1, 4.0), sample(30, 0, 0, 1, 14.0)
    assert cores_used(before, now) == {"learn": 0.5, "benchmark": 0.0}
    assert cores_used(before._replace(cpu_seconds={"benchmark": 0.0}), now) == {"benchmark": 0.0}


def test_memory_and_cpu_of_a_process() -> None:
    assert resident_mib(os.getpid()) == pytest.approx(resident_mib(), rel=0.1)
    assert resident_mib(os.getppid()) != resident_mib()
    before = cpu_seconds("self")
    while time.process_time() < before + 0.5:  # enough work for the system's clock ticks
        sum(range(1000))
    assert cpu_seconds(os.getpid()) > before


def test_services_are_children_that_are_not_flows() -> None:
    busy = [sys.executable, "-c", "import time\nwhile time.process_time() < 1: pass\ntime.sleep(60)"]
    with subprocess.Popen(busy) as child:
        try:
            give_up = time.monotonic() + 60
            while cpu_seconds(child.pid) < 0.5 and time.monotonic() < give_up:
                time.sleep(0.05)
            assert services_cpu_seconds([]) >= services_cpu_seconds([child.pid]) + 0.5
        finally:
            child.kill()


def test_rows_relate_memory_and_mrr_to_their_references() -> None:
    samples = [sample(0, 0, 0, 50, 0), sample(120, 300, 290, 100, 60), sample(150, 600, 560, 150, 69)]
    totals = {"full": sums(0.3, 4), "popularity_recent": sums(0.1, 4), "cooccurrence": sums(0.2, 4)}
    run = RunMeasurements(samples, [(20.0, 10), (40.0, 70), (60.0, 40)], totals)
    found = {row.variant: row for row in sustained_rows("case", run, [0.05] * 100, 0.15)}
    assert (found["maximum learner lag"].median, found["learner lag at the end"].median) == (70, 40)
    assert found["learn, memory at 120 s"].median == 100
    assert found["learn, memory at the end"].ratio == 1.5
    assert found["learn, CPU"].median == pytest.approx((0.5 + 0.3) / 2)
    assert found["event to Redis p99"].median == pytest.approx(50)
    assert found["MRR, full"].ratio == pytest.approx(3)
    assert found["MRR, popularity of the last hour"].ratio == pytest.approx(1.5)


def test_hourly_popularity_drops_old_events_and_seen_titles() -> None:
    old = [(f"u{n}", "old", n) for n in range(3)]
    new = [("v", "new", 7200), ("w", "new", 7201), ("w", "new", 7202)]
    data = stream([*old, *new])
    # For "v" the hour is empty and popularity breaks the tie: rank 2. For "w" only "new" is in it: rank 1. The last
    # event is not ranked, because "w" has seen the title.
    assert hourly_popularity_mrr(data, 3, every=1) == pytest.approx((1 / 2 + 1) / 2)
