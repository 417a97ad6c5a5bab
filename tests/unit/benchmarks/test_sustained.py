"""What the benchmarks of the whole loop count, on looks and streams whose right answer is known."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from benchmarks.probe import last, paced, quantiles
from benchmarks.sustained import Course, Look, cores_of, cpu, growth, popularity_of_the_hour, rows, services, waiting
from infra.data.datasets import DataError, DataSet, from_tables
from infra.data.tables import Table
from infra.experiments.machine import resident_mib
from infra.monitor.lag import Lag
from infra.monitor.metric_totals import Sums
from model.metrics.ranking import MEASURES, SLICES


def stream(acts: Sequence[tuple[str, str, int]]) -> DataSet:
    events = pd.DataFrame(acts, columns=["user", "item", "ts"])
    return from_tables(Table("events", events), None, name="few")


def looked(at: float, sent: int, learned: int, learn: float, cores: float) -> Look:
    return Look(at, sent, learned, 0, 0.0, 0.5, {"learn": learn}, {"learn": cores, "benchmark": 0.0})


def sums(mrr: float, scored: int) -> Sums:
    total, counts = np.zeros((len(MEASURES), len(SLICES))), np.zeros(len(SLICES))
    total[MEASURES.index("mrr"), SLICES.index("all")], counts[SLICES.index("all")] = mrr * scored, scored
    return Sums(total, counts)


def test_a_lag_that_rises_is_told_from_one_that_stays() -> None:
    warm = [(0.0, 900.0), (1.0, 100.0)]  # the beginning does not count
    assert growth([*warm, *((float(s), 5.0 * s) for s in range(2, 20))]) == pytest.approx(5)
    assert growth([*warm, *((float(s), 40.0) for s in range(2, 20))]) == pytest.approx(0, abs=1e-9)
    assert np.isnan(growth(warm))


def test_a_topics_records_wait_over_all_its_partitions_and_the_longest_wait_counts() -> None:
    lags = [
        Lag("publish", "log", 0, 5, 10, 5, 2.0),
        Lag("publish", "log", 1, 5, 8, 3, None),  # the broker did not tell the time
        Lag("publish", "other", 0, 0, 50, 50, 9.0),
    ]
    assert waiting(lags, "log") == (8, 2.0)
    assert waiting([], "log") == (0, 0.0)


def test_a_flow_that_was_started_again_is_left_out_until_two_looks_know_it() -> None:
    before, now = looked(10, 0, 0, 1, 4.0), looked(30, 0, 0, 1, 14.0)
    assert cores_of(before, now) == {"learn": 0.5, "benchmark": 0.0}
    assert cores_of(before._replace(cpu={"benchmark": 0.0}), now) == {"benchmark": 0.0}


def test_memory_and_processors_are_those_of_the_process_that_is_named() -> None:
    assert resident_mib(os.getpid()) == pytest.approx(resident_mib(), rel=0.1)
    assert resident_mib(os.getppid()) != resident_mib()
    begun = cpu("self")
    while time.process_time() < begun + 0.5:  # work that the system must have seen
        sum(range(1000))
    assert cpu(os.getpid()) > begun


def test_services_are_the_children_that_are_no_flows() -> None:
    busy = [sys.executable, "-c", "import time\nwhile time.process_time() < 1: pass\ntime.sleep(60)"]
    with subprocess.Popen(busy) as child:
        try:
            give_up = time.monotonic() + 60
            while cpu(child.pid) < 0.5 and time.monotonic() < give_up:
                time.sleep(0.05)
            assert services([]) >= services([child.pid]) + 0.5
        finally:
            child.kill()


def test_the_rows_compare_memory_with_the_early_look_and_accuracy_with_the_window() -> None:
    looks = [looked(0, 0, 0, 50, 0), looked(120, 300, 290, 100, 60), looked(150, 600, 560, 150, 69)]
    tally = {"full": sums(0.3, 4), "popularity_recent": sums(0.1, 4), "cooccurrence": sums(0.2, 4)}
    course = Course(looks, [(20.0, 10), (40.0, 70), (60.0, 40)], tally)
    found = {row.variant: row for row in rows("case", course, [0.05] * 100, 0.15)}
    assert (found["behind at worst"].median, found["behind at the end"].median) == (70, 40)
    assert (found["learn at 120 s"].median, found["learn at the end"].ratio) == (100, 1.5)
    assert found["learn, processors"].median == pytest.approx((0.5 + 0.3) / 2)
    assert found["event to redis p99"].median == pytest.approx(50)
    assert found["MRR, premiere"].ratio == pytest.approx(3)
    assert found["MRR, popularity of the hour"].ratio == pytest.approx(1.5)


def test_the_popularity_of_the_hour_forgets_what_is_older_and_ranks_nothing_that_was_seen() -> None:
    old = [(f"u{n}", "old", n) for n in range(3)]
    new = [("v", "new", 7200), ("w", "new", 7201), ("w", "new", 7202)]
    data = stream([*old, *new])
    # "v" finds the hour empty, popularity breaks the tie: rank 2. "w" finds "new" alone in it, and again is no target.
    assert popularity_of_the_hour(data, 3, every=1) == pytest.approx((1 / 2 + 1) / 2)


def test_the_last_events_of_a_stream_are_played_and_fewer_than_wanted_are_refused() -> None:
    data = stream([("u", f"t{n}", n) for n in range(6)])
    assert [event.title for event in paced(last(data, 4), 1, 1e9)] == ["t3", "t4", "t5"]
    with pytest.raises(DataError, match="6 events and 7 are wanted"):
        last(data, 7)


def test_quantiles_of_a_hundred_values_are_those_values() -> None:
    assert quantiles([float(n) for n in range(100, 0, -1)]) == {50: 51.0, 95: 96.0, 99: 100.0}
