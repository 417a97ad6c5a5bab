"""The rows of the latency benchmark, on given latencies."""

import pytest

from benchmarks.latency import latency_rows


def test_latencies_are_compared_with_the_same_percentile_of_kafka() -> None:
    kafka = [0.001 * n for n in range(1, 101)]
    found = {row.variant: row for row in latency_rows("case", kafka, [3 * s for s in kafka], [0.5])}
    assert found["Kafka alone p50"].median == pytest.approx(51)
    assert found["event to Redis p99"].median == pytest.approx(300)
    assert [found[f"event to Redis p{p}"].ratio for p in (50, 95, 99)] == pytest.approx([3, 3, 3])
    assert found["launch to list p50"].ratio == pytest.approx(500 / 51)
    assert {row.unit for row in found.values()} == {"ms"}
