"""Resident memory of `features` over a long stream of many users: what it holds, a user and an event.

The whole flow in one process (a real broker, Feast in Redis, the offline log, a recovery store), memory and users noted
as it goes. A user's state is bounded, so memory follows the number of users; over further events of the same users it
must stay flat. So the stream is played twice: the second time there is no new user.

    python -m benchmarks.memory --events clicks.parquet     (columns user, item, ts)
"""

import argparse
import os
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

from benchmarks.runner import publish, row
from features.definitions import FORGOTTEN_ROW, USER_ROW
from features.store import offline_folder, open_store, write_user_activity
from infra.data.datasets import DataSet, load
from infra.data.producer import Delivery
from infra.data.simulate import simulate
from infra.experiments.machine import resident_mib
from infra.local.embedded import start_kafka, start_redis
from infra.topics import create
from streaming.flows import features
from streaming.kafka.sink import KafkaSink
from streaming.kafka.source import KafkaSource
from streaming.records import to_json
from streaming.stores.feast_online import FeastSink
from streaming.stores.parquet_log import ParquetSink
from streaming.topics import USER_EVENTS, topics

EPOCH: Final = timedelta(seconds=1)
EVERY: Final = 2.0  # seconds between two looks
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
MIB: Final = 1 << 20


class Look(NamedTuple):
    """Memory at one moment."""

    events: int
    resident: float  # MiB


def watch(looks: list[Look], stop: threading.Event, of: int) -> None:
    """Note memory until `stop`."""
    while not stop.wait(EVERY):
        taken = int(features.EVENTS._value.get())
        looks.append(Look(taken, resident_mib()))
        if len(looks) % 5 == 0:
            print(f"{taken:>10,} of {of:,} events  {looks[-1].resident:8,.0f} MiB", flush=True)


def send(data: DataSet, config: dict[str, str], times: int) -> None:
    """All events, so many times over, each time later."""
    delivery, span = Delivery(config), int(data.ts[-1] - data.ts[0]) + 1
    for again in range(times):
        for k in range(len(data)):
            event = data.event(k)
            late = type(event)(user=event.user, title=event.title, ts=event.ts + again * span, action=event.action)
            delivery.send(USER_EVENTS, late.user, to_json(late))
    delivery.flush()
    delivery.close()


def run(config: dict[str, str], redis_url: str, folder: Path) -> None:
    """The flow `features` over the topic, to its end."""
    store, log = open_store(redis_url, folder), KafkaSink(config)
    flow = features.build(
        events=KafkaSource(config, USER_EVENTS, "benchmark", tail=False),
        activity=log,
        online=FeastSink(partial(write_user_activity, store)),
        offline=ParquetSink(offline_folder(folder, "user_activity"), 1, USER_ROW),
        forgotten=ParquetSink(offline_folder(folder, "user_forgotten"), 1, FORGOTTEN_ROW),
        dead_letters=log,
    )
    recovery = folder / "recovery"
    recovery.mkdir()
    init_db_dir(recovery, 1)
    cli_main(flow, epoch_interval=EPOCH, recovery_config=RecoveryConfig(recovery, timedelta(0)))


def at(looks: Sequence[Look], events: int) -> float:
    """Resident MiB when so many events had been taken."""
    return next((look.resident for look in looks if look.events >= events), looks[-1].resident)


def main() -> None:
    """Run and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=Path, help="a data set; without one an audience is simulated")
    parser.add_argument("--quick", action="store_true", help="a small simulated audience")
    given = parser.parse_args()
    size = 20_000 if given.quick else 200_000
    data = load(given.events) if given.events else simulate(users=size // 10, events=size)
    looks: list[Look] = []
    stop = threading.Event()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = {"bootstrap.servers": stack.enter_context(start_kafka(folder / "kafka"))}
        redis_url = stack.enter_context(start_redis(folder / "redis"))
        create(config, topics())
        send(data, config, 2)
        print(f"{2 * len(data):,} events of {len(data.users):,} users are in Kafka", flush=True)
        before, began = resident_mib(), time.monotonic()
        watcher = threading.Thread(target=watch, args=(looks, stop, 2 * len(data)), daemon=True)
        watcher.start()
        run(config, redis_url, folder / "feast")
        stop.set()
        took = time.monotonic() - began
    once, twice = at(looks, len(data)), looks[-1].resident
    rows = {
        "before": (before, "MiB"),
        "all users seen": (once, "MiB"),
        "all events twice": (twice, "MiB"),
        "a user": ((once - before) * 1024 / len(data.users), "KiB"),
        "events taken": (2 * len(data) / took, "events/s"),
    }
    case = f"{data.name}, {len(data.users):,} users"
    publish("memory", [row(case, name, [value], unit, value / once if unit == "MiB" else 1.0)
                       for name, (value, unit) in rows.items()])  # fmt: skip


if __name__ == "__main__":
    main()
