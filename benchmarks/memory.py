"""Measures the resident memory of the flow `features` over a long stream of many users, per user and per event.

The whole flow runs in one process, with a real broker, Feast in Redis, the offline log and a recovery store. Memory is
sampled meanwhile. The state of a user is bounded, so memory must grow with the number of users, and stay constant over
further events of the same users. So the stream is produced twice: the second pass has no new user.

    python -m benchmarks.memory --events clicks.parquet     (columns user, item, ts)
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from benchmarks.runner import Row, make_row, save_results
from features.definitions import USER_ACTIVITY_SCHEMA, USER_ERASURES_SCHEMA
from features.store import offline_folder, open_store, write_user_activity
from infra.data.datasets import Dataset, load
from infra.data.producer import Delivery
from infra.data.simulate import simulate
from infra.experiments.machine import resident_mib
from infra.local.embedded import start_kafka, start_redis
from infra.topics import create_topics
from streaming.flows import features
from streaming.kafka.sink import KafkaSink
from streaming.kafka.source import KafkaSource
from streaming.records import to_json
from streaming.state import user_state
from streaming.stores.feast_online import FeastSink
from streaming.stores.parquet_log import ParquetSink
from streaming.topics import ERASURE_REQUESTS, USER_EVENTS, topics

EPOCH_INTERVAL: Final = timedelta(seconds=1)
SAMPLE_INTERVAL_S: Final = 2.0
SAMPLES_PER_LINE: Final = 5  # samples between two printed lines
PASSES: Final = 2
KIB_PER_MIB: Final = 1024


class MemorySample(NamedTuple):
    """Resident memory after a number of events."""

    events: int
    resident_mib: float


def sample_memory(samples: list[MemorySample], stop: threading.Event, total_events: int) -> None:
    """Append a sample every `SAMPLE_INTERVAL_S` until `stop` is set."""
    while not stop.wait(SAMPLE_INTERVAL_S):
        events = int(user_state.EVENTS._value.get())
        samples.append(MemorySample(events, resident_mib()))
        if len(samples) % SAMPLES_PER_LINE == 0:
            print(f"{events:>10,} of {total_events:,} events  {samples[-1].resident_mib:8,.0f} MiB", flush=True)


def produce_passes(data: Dataset, config: dict[str, str], passes: int) -> None:
    """Produce all events several times, each pass later in event time than the one before."""
    delivery, span = Delivery(config), int(data.ts[-1] - data.ts[0]) + 1
    for n in range(passes):
        for k in range(len(data)):
            event = data.event(k)
            shifted = type(event)(user=event.user, title=event.title, ts=event.ts + n * span, action=event.action)
            delivery.send(USER_EVENTS, shifted.user, to_json(shifted))
    delivery.flush()
    delivery.close()


def run_features_flow(config: dict[str, str], redis_url: str, folder: Path) -> None:
    """Run the flow `features` to the end of the topic."""
    store, sink = open_store(redis_url, folder), KafkaSink(config)
    flow = features.build(
        events=KafkaSource(config, USER_EVENTS, "benchmark", tail=False),
        requests=KafkaSource(config, ERASURE_REQUESTS, "benchmark", tail=False),
        activity=sink,
        online=FeastSink(partial(write_user_activity, store)),
        offline=ParquetSink(offline_folder(folder, "user_activity"), 1, USER_ACTIVITY_SCHEMA),
        erasures=ParquetSink(offline_folder(folder, "user_erasures"), 1, USER_ERASURES_SCHEMA),
        dead_letters=sink,
    )
    recovery = folder / "recovery"
    recovery.mkdir()
    init_db_dir(recovery, 1)
    cli_main(flow, epoch_interval=EPOCH_INTERVAL, recovery_config=RecoveryConfig(recovery, timedelta(0)))


def resident_after(samples: Sequence[MemorySample], events: int) -> float:
    """Resident MiB at the first sample with at least this number of events; at the last sample if there is none."""
    return next((sample.resident_mib for sample in samples if sample.events >= events), samples[-1].resident_mib)


def memory_rows(data: Dataset, before_mib: float, samples: Sequence[MemorySample], seconds: float) -> list[Row]:
    """Memory before the flow and after each pass, per user, and the throughput."""
    first_mib, second_mib = resident_after(samples, len(data)), samples[-1].resident_mib
    values = {
        "before the flow": (before_mib, "MiB"),
        "after the first pass": (first_mib, "MiB"),
        "after the second pass": (second_mib, "MiB"),
        "per user": ((first_mib - before_mib) * KIB_PER_MIB / len(data.users), "KiB"),
        "throughput": (PASSES * len(data) / seconds, "events/s"),
    }
    case = f"{data.name}, {len(data.users):,} users"
    return [
        make_row(case, name, [value], unit, value / first_mib if unit == "MiB" else 1.0)
        for name, (value, unit) in values.items()
    ]


def measure(data: Dataset) -> list[Row]:
    """Produce the dataset twice, run the flow over it, and return its memory."""
    samples: list[MemorySample] = []
    stop = threading.Event()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = {"bootstrap.servers": stack.enter_context(start_kafka(folder / "kafka"))}
        redis_url = stack.enter_context(start_redis(folder / "redis"))
        create_topics(config, topics())
        produce_passes(data, config, PASSES)
        total = PASSES * len(data)
        print(f"{total:,} events of {len(data.users):,} users are in Kafka", flush=True)
        before_mib, began = resident_mib(), time.monotonic()
        sampler = threading.Thread(target=sample_memory, args=(samples, stop, total), daemon=True)
        sampler.start()
        run_features_flow(config, redis_url, folder / "feast")
        stop.set()
        seconds = time.monotonic() - began
    return memory_rows(data, before_mib, samples, seconds)


def main() -> None:
    """Measure and save the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=Path, help="events file; default: simulated users")
    parser.add_argument("--quick", action="store_true", help="20,000 instead of 200,000 simulated events")
    options = parser.parse_args()
    size = 20_000 if options.quick else 200_000
    data = load(options.events) if options.events else simulate(users=size // 10, events=size)
    save_results("memory", measure(data))


if __name__ == "__main__":
    main()
