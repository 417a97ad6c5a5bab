"""Seconds from an event, or a launch, to its effect in Redis, as a client sees it, with everything on this machine.

The loop is warmed with a history first. Then events come at a stated rate, and launches in between; a reader looks at
the written keys all the while. The reference in the same run is Kafka alone: the same record, from its producer to a
plain consumer of the same topic.

    python -m benchmarks.latency --rate 100 --seconds 60
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.probe import Probe, last, paced, quantiles, warmed
from benchmarks.runner import Row, publish, row
from infra.data.datasets import DataSet
from infra.data.locate import find
from infra.settings import Settings, load
from streaming.records import Launch

EVERY: Final = 2.0  # seconds between two launches


def measure(settings: Settings, data: DataSet, history: int, rate: float, seconds: float) -> Probe:
    """Warm the loop with `history` events, then send at `rate` for `seconds`."""
    part = last(data, history + int(rate * seconds))
    with warmed(settings, part, history) as loop, Probe(loop) as probe:
        began, released = time.monotonic(), 0
        for event in paced(part, history, rate):
            probe.act(event)
            if time.monotonic() - began > EVERY * (released + 1):
                like = part.launches[-1 - released]
                told = {"name": like.name, "genres": like.genres, "overview": like.overview}
                probe.release(Launch(title=f"new-{released}", **told))
                released += 1
        probe.finish()
        return probe


def rows(case: str, probe: Probe) -> list[Row]:
    """Percentiles, and their ratio to Kafka's own."""
    found = []
    base = quantiles(probe.kafka)
    found_by = {"kafka alone": probe.kafka, "event to redis": probe.event, "launch to list": probe.launch}
    for name, values in found_by.items():
        for share, value in quantiles(values).items():
            found.append(row(case, f"{name} p{share}", [value * 1000], "ms", value / base[share]))
    return found


def main() -> None:
    """Run and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=float, default=100, help="events/s")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--history", type=int, default=5000, help="events learned first")
    parser.add_argument("--quick", action="store_true", help="10 s after 1,000 events")
    given = parser.parse_args()
    if given.quick:
        given.seconds, given.history = 10.0, 1000
    with tempfile.TemporaryDirectory() as folder:
        settings = load(data_dir=Path(folder))
        data = find(None, None, (), data_dir=Path(".premiere"), folder=settings.data)
        probe = measure(settings, data, given.history, given.rate, given.seconds)
    unseen = f"{len(probe.waiting)} and {len(probe.launched)}"
    print(f"{len(probe.event)} events and {len(probe.launch)} launches seen, {unseen} not")
    publish("freshness", rows(f"{data.name}, {given.rate:g} events/s", probe))


if __name__ == "__main__":
    main()
