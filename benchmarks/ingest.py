"""Events a second that `features` takes from Kafka into its log and Feast, beside what one process could else do.

A real broker, a real Redis, histories, activities, online and offline rows as in life, an epoch a second. Beside it: a
bare consumer that does nothing with what it reads; the same flow without the feature store; and the rows of as many
events written by Feast's own `push`, and by the fastest path that Feast supports (own protos to its provider, without
comparing times, so not safe under replay).

    python -m benchmarks.ingest --events 100000
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main
from redis import Redis

from benchmarks.runner import Row, publish, row
from features.definitions import FORGOTTEN_ROW, USER_ROW, user, user_activity
from features.rows import to_proto
from features.store import offline_folder, open_store, write_user_activity
from infra.data.producer import Delivery
from infra.data.simulate import simulate
from infra.local.embedded import start_kafka, start_redis
from infra.topics import create
from streaming.flows.features import build
from streaming.kafka.sink import KafkaSink
from streaming.kafka.source import KafkaSource, read_all
from streaming.records import action_code, decode_event, to_json
from streaming.state.user_history import UserEvent, UserHistory
from streaming.stores.feast_online import FeastSink
from streaming.stores.parquet_log import ParquetSink
from streaming.topics import USER_EVENTS, topics

EPOCH = timedelta(seconds=1)
FEAST_ROWS = 20_000  # that Feast's own paths are timed with


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
        data, delivery = simulate(users=events // 10, events=events), Delivery(config)
        for k in range(events):
            event = data.event(k)
            delivery.send(USER_EVENTS, event.user, to_json(event))
        delivery.flush()
        yield config


def bare(config: dict[str, str]) -> None:
    """Read the topic."""
    for _ in read_all(config, USER_EVENTS):
        pass


@dataclass(frozen=True)
class Bench:
    """What every variant is run with."""

    config: dict[str, str]
    redis_url: str
    folder: Path  # empty; each run takes a folder of its own in it
    rows: list[dict[str, Any]]  # of `user_activity`, one an event


def flow(bench: Bench, feast: bool) -> None:
    """Run `features` over the topic to its end."""
    config, folder = bench.config, Path(tempfile.mkdtemp(dir=bench.folder))
    source = KafkaSource(config, USER_EVENTS, "benchmark", tail=False)
    sinks: dict[str, Any] = dict.fromkeys(("online", "offline", "forgotten"), Nowhere())
    if feast:
        store = open_store(bench.redis_url, folder)
        sinks["online"] = FeastSink(partial(write_user_activity, store))
        sinks["offline"] = ParquetSink(offline_folder(folder, "user_activity"), 1, USER_ROW)
        sinks["forgotten"] = ParquetSink(offline_folder(folder, "user_forgotten"), 1, FORGOTTEN_ROW)
    run_main(
        build(events=source, activity=KafkaSink(config), dead_letters=KafkaSink(config), **sinks), epoch_interval=EPOCH
    )


def push(bench: Bench) -> None:
    """The rows by Feast's `push`, 500 a call."""
    from feast import FeatureView, PushSource
    from feast.data_source import PushMode

    store = _opened(bench)
    source = PushSource(name="pushed", batch_source=user_activity.batch_source)
    view = FeatureView(name="pushed_activity", entities=[user], schema=user_activity.features, source=source)
    store.apply([source, view])
    for start in range(0, len(bench.rows), 500):
        frame = pd.DataFrame(bench.rows[start : start + 500])
        store.push("pushed", frame, to=PushMode.ONLINE)


def fastest(bench: Bench) -> None:
    """The rows by own protos and the provider, 500 a call, without comparing times."""
    store = _opened(bench)
    store.config.online_store.skip_dedup = True
    for start in range(0, len(bench.rows), 500):
        protos = [to_proto(user_activity, row) for row in bench.rows[start : start + 500]]
        store.provider.online_write_batch(store.config, user_activity, protos, None)


def _opened(bench: Bench) -> Any:
    return open_store(bench.redis_url, Path(tempfile.mkdtemp(dir=bench.folder)))


def rows_of(config: dict[str, str], most: int) -> list[dict[str, Any]]:
    """The features after each of the topic's first events."""
    histories: dict[str, UserHistory] = {}
    rows = []
    for message in read_all(config, USER_EVENTS):
        event = decode_event(message.value or b"")
        where = message.partition, message.offset, message.appended
        arrival = UserEvent(event.user, event.title, event.ts, action_code(event), event.event_id, *where)
        row = histories.setdefault(event.user, UserHistory()).apply(arrival)
        rows += [row] if row else []
        if len(rows) == most:
            break
    return rows


def main() -> None:
    """Run and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="20,000 events, once")
    given = parser.parse_args()
    if given.quick:
        given.events, given.rounds = 20_000, 1
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = stack.enter_context(filled(given.events, folder / "kafka"))
        bench = Bench(config, stack.enter_context(start_redis(folder / "redis")), folder, rows_of(config, FEAST_ROWS))
        found = measure(bench, given.events, given.rounds)
    publish("ingest", found)


def measure(bench: Bench, events: int, rounds: int) -> list[Row]:
    """Every variant in turn, as rates; the ratio is to the bare consumer's."""
    variants: dict[str, tuple[int, Callable[[], object]]] = {
        "bare consumer": (events, lambda: bare(bench.config)),
        "features, without Feast": (events, lambda: flow(bench, feast=False)),
        "features": (events, lambda: flow(bench, feast=True)),
        "Feast's push, rows alone": (len(bench.rows), lambda: push(bench)),
        "Feast's fastest path, rows alone": (len(bench.rows), lambda: fastest(bench)),
    }
    gc.freeze()
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, (count, work) in variants.items():
            Redis.from_url(bench.redis_url).flushdb()  # else every row would be known, and not written
            began = time.perf_counter()
            work()
            rates[name].append(count / (time.perf_counter() - began))
            print(f"{name:<36} {rates[name][-1]:>10,.0f} events/s", flush=True)
    base = sorted(rates["bare consumer"])[rounds // 2]
    return [row(f"{events:,} events", name, v, "events/s", sorted(v)[rounds // 2] / base) for name, v in rates.items()]


if __name__ == "__main__":
    main()
