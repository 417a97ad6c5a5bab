"""Measures how many events per second `features` takes from Kafka into the offline log and Feast, against alternatives.

It uses a real broker and a real Redis, with user histories, activity records, online and offline rows as in production,
and one epoch per second. The alternatives:

    bare consumer             reads the topic and does nothing with it
    features, without Feast   the same flow with sinks that drop their rows
    Feast's push              the online rows of as many events by Feast's documented `push`
    Feast's fastest path      own protos passed to Feast's provider; it does not compare timestamps, so it is not safe
                              when events are reprocessed

    python -m benchmarks.ingest --events 100000
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main
from redis import Redis

from benchmarks.runner import Row, Work, make_row, save_results
from features.definitions import USER_ACTIVITY_SCHEMA, USER_ERASURES_SCHEMA, user, user_activity
from features.rows import to_proto
from features.store import offline_folder, open_store, write_user_activity
from infra.data.producer import Delivery
from infra.data.simulate import simulate
from infra.local.embedded import start_kafka, start_redis
from infra.topics import create_topics
from streaming.flows.features import build
from streaming.kafka.sink import KafkaSink
from streaming.kafka.source import KafkaSource, read_all
from streaming.records import action_code, decode_event, to_json
from streaming.state.user_history import UserEvent, UserHistory
from streaming.stores.feast_online import FeastSink
from streaming.stores.parquet_log import ParquetSink
from streaming.topics import USER_EVENTS, topics

EPOCH_INTERVAL: Final = timedelta(seconds=1)
FEAST_ROWS: Final = 20_000  # rows that Feast's own paths are timed with
FEAST_BATCH: Final = 500  # rows per call of Feast
REFERENCE: Final = "bare consumer"


class _NullPartition(StatelessSinkPartition[Any]):
    def write_batch(self, items: list[Any]) -> None:
        """Drop the items."""


class NullSink(DynamicSink[Any]):
    """Drops all rows."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _NullPartition:
        """A partition for each worker."""
        return _NullPartition()


@contextmanager
def filled_broker(events: int, folder: Path) -> Iterator[dict[str, str]]:
    """A running broker with `events` events of simulated users. Yields the configuration of its clients."""
    with start_kafka(folder) as address:
        config = {"bootstrap.servers": address}
        create_topics(config, topics())
        data, delivery = simulate(users=events // 10, events=events), Delivery(config)
        for k in range(events):
            event = data.event(k)
            delivery.send(USER_EVENTS, event.user, to_json(event))
        delivery.flush()
        yield config


@dataclass(frozen=True)
class IngestSetup:
    """The services and data that all variants share."""

    kafka_config: dict[str, str]
    redis_url: str
    folder: Path  # each run creates a folder of its own in it
    rows: list[dict[str, Any]]  # of `user_activity`, one per event


def consume_only(config: dict[str, str]) -> None:
    """Read the topic."""
    for _ in read_all(config, USER_EVENTS):
        pass


def run_features_flow(setup: IngestSetup, feast: bool) -> None:
    """Run `features` to the end of the topic."""
    config, folder = setup.kafka_config, Path(tempfile.mkdtemp(dir=setup.folder))
    source = KafkaSource(config, USER_EVENTS, "benchmark", tail=False)
    sinks: dict[str, Any] = dict.fromkeys(("online", "offline", "erasures"), NullSink())
    if feast:
        store = open_store(setup.redis_url, folder)
        sinks["online"] = FeastSink(partial(write_user_activity, store))
        sinks["offline"] = ParquetSink(offline_folder(folder, "user_activity"), 1, USER_ACTIVITY_SCHEMA)
        sinks["erasures"] = ParquetSink(offline_folder(folder, "user_erasures"), 1, USER_ERASURES_SCHEMA)
    flow = build(events=source, activity=KafkaSink(config), dead_letters=KafkaSink(config), **sinks)
    run_main(flow, epoch_interval=EPOCH_INTERVAL)


def feast_push(setup: IngestSetup) -> None:
    """Write the rows with Feast's `push`."""
    from feast import FeatureView, PushSource
    from feast.data_source import PushMode

    store = _new_store(setup)
    source = PushSource(name="pushed", batch_source=user_activity.batch_source)
    view = FeatureView(name="pushed_activity", entities=[user], schema=user_activity.features, source=source)
    store.apply([source, view])
    for start in range(0, len(setup.rows), FEAST_BATCH):
        frame = pd.DataFrame(setup.rows[start : start + FEAST_BATCH])
        store.push("pushed", frame, to=PushMode.ONLINE)


def feast_provider_write(setup: IngestSetup) -> None:
    """Write the rows as own protos through Feast's provider, without comparing timestamps."""
    store = _new_store(setup)
    store.config.online_store.skip_dedup = True
    for start in range(0, len(setup.rows), FEAST_BATCH):
        protos = [to_proto(user_activity, row) for row in setup.rows[start : start + FEAST_BATCH]]
        store.provider.online_write_batch(store.config, user_activity, protos, None)


def _new_store(setup: IngestSetup) -> Any:
    return open_store(setup.redis_url, Path(tempfile.mkdtemp(dir=setup.folder)))


def activity_rows(config: dict[str, str], limit: int) -> list[dict[str, Any]]:
    """The feature rows of the topic's first `limit` events."""
    histories: dict[str, UserHistory] = {}
    rows: list[dict[str, Any]] = []
    for message in read_all(config, USER_EVENTS):
        event = decode_event(message.value or b"")
        position = message.partition, message.offset, message.appended
        user_event = UserEvent(event.user, event.title, event.ts, action_code(event), event.event_id, *position)
        row = histories.setdefault(event.user, UserHistory()).apply(user_event)
        rows += [row] if row else []
        if len(rows) == limit:
            break
    return rows


def rate_rows(case: str, rates: Mapping[str, list[float]]) -> list[Row]:
    """Events per second of each variant, with the ratio of its median to the bare consumer's."""
    medians = {name: sorted(values)[len(values) // 2] for name, values in rates.items()}
    return [
        make_row(case, name, values, "events/s", medians[name] / medians[REFERENCE]) for name, values in rates.items()
    ]


def measure(setup: IngestSetup, events: int, rounds: int) -> list[Row]:
    """Run every variant once per round."""
    variants: dict[str, tuple[int, Work]] = {
        REFERENCE: (events, lambda: consume_only(setup.kafka_config)),
        "features, without Feast": (events, lambda: run_features_flow(setup, feast=False)),
        "features": (events, lambda: run_features_flow(setup, feast=True)),
        "Feast's push, rows only": (len(setup.rows), lambda: feast_push(setup)),
        "Feast's fastest path, rows only": (len(setup.rows), lambda: feast_provider_write(setup)),
    }
    gc.freeze()
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, (count, work) in variants.items():
            Redis.from_url(setup.redis_url).flushdb()  # otherwise every row would exist already and not be written
            began = time.perf_counter()
            work()
            rates[name].append(count / (time.perf_counter() - began))
            print(f"{name:<36} {rates[name][-1]:>10,.0f} events/s", flush=True)
    return rate_rows(f"{events:,} events", rates)


def main() -> None:
    """Measure and save the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, default=100_000, help="events in the topic")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each variant")
    parser.add_argument("--quick", action="store_true", help="20,000 events, 1 round")
    options = parser.parse_args()
    if options.quick:
        options.events, options.rounds = 20_000, 1
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = stack.enter_context(filled_broker(options.events, folder / "kafka"))
        redis_url = stack.enter_context(start_redis(folder / "redis"))
        setup = IngestSetup(config, redis_url, folder, activity_rows(config, FEAST_ROWS))
        rows = measure(setup, options.events, options.rounds)
    save_results("ingest", rows)


if __name__ == "__main__":
    main()
