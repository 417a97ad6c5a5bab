"""Events a second that `features` takes from Kafka into its log, beside a bare consumer in the same run.

One process, a real broker, histories and activities as in life; the feature store is left out, for its share is its own
(`features.store`). The bare consumer reads every message and does nothing with it.

    python -m benchmarks.ingest --events 100000
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from benchmarks.runner import publish, row
from infra.embedded import start_kafka
from infra.replay import Delivery
from infra.simulate import audience
from infra.topics import create
from streaming.features import build
from streaming.kafka import KafkaSource, read_all
from streaming.kafka_sink import KafkaSink
from streaming.records import to_json
from streaming.topics import USER_EVENTS, topics


class _Nowhere(StatelessSinkPartition[Any]):
    def write_batch(self, items: list[Any]) -> None:
        """Drop them."""


class Nowhere(DynamicSink[Any]):
    """Where rows go that are not measured."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Nowhere:
        """One a worker."""
        return _Nowhere()


@contextmanager
def filled(events: int, folder: Path) -> Iterator[dict[str, str]]:
    """A broker that holds `events` events of a simulated audience; its client configuration."""
    with start_kafka(folder) as address:
        config = {"bootstrap.servers": address}
        create(config, topics())
        data, delivery = audience(users=events // 20, events=events), Delivery(config)
        for k in range(events):
            event = data.event(k)
            delivery.send(USER_EVENTS, event.user, to_json(event))
        delivery.flush()
        yield config


def bare(config: dict[str, str]) -> None:
    """Read the topic."""
    for _ in read_all(config, USER_EVENTS):
        pass


def flow(config: dict[str, str]) -> None:
    """Run `features` over the topic to its end."""
    source = KafkaSource(config, USER_EVENTS, "benchmark", tail=False)
    log, nowhere = KafkaSink(config), Nowhere()
    sinks = {"online": nowhere, "offline": nowhere, "forgotten": nowhere, "dead_letters": KafkaSink(config)}
    run_main(build(events=source, activity=log, **sinks))


def main() -> None:
    """Run and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="20,000 events, once")
    given = parser.parse_args()
    if given.quick:
        given.events, given.rounds = 20_000, 1
    rates: dict[str, list[float]] = {"bare consumer": [], "features": []}
    with tempfile.TemporaryDirectory() as folder, filled(given.events, Path(folder)) as config:
        for _ in range(given.rounds):
            for name, work in (("bare consumer", bare), ("features", flow)):
                began = time.perf_counter()
                work(config)
                rates[name].append(given.events / (time.perf_counter() - began))
    base = sorted(rates["bare consumer"])[given.rounds // 2]
    found = [
        row(f"{given.events:,} events", name, v, "events/s", sorted(v)[given.rounds // 2] / base)
        for name, v in rates.items()
    ]
    publish("ingest", found)


if __name__ == "__main__":
    main()
