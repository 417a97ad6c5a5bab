"""The rows of the ingest benchmark, and the sink that stands in for the feature store."""

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSource, run_main

from benchmarks.ingest import NullSink, rate_rows


def test_rates_are_relative_to_the_bare_consumer() -> None:
    rates = {"bare consumer": [100.0, 300.0, 200.0], "features": [40.0, 60.0, 50.0]}
    bare, features = rate_rows("case", rates)
    assert (bare.median, bare.ratio, bare.unit) == (200, 1, "events/s")
    assert (features.median, features.ratio) == (50, 0.25)


def test_null_sink_takes_every_item() -> None:
    flow, seen = Dataflow("null"), list[int]()
    items = op.input("items", flow, TestingSource(range(3)))
    op.output("drop", op.inspect("see", items, lambda _step, item: seen.append(item)), NullSink())
    run_main(flow)
    assert seen == [0, 1, 2]
