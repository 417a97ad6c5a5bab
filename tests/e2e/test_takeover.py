"""A stalled process (SIGSTOP) that another one replaced wakes up: it writes, announces and deletes nothing, and ends.

The two processes have data folders of their own, as on two machines, and share Kafka, Redis and the checkpoints.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from redis import Redis

from infra.errors import FlowOwnedError
from infra.local.processes import log_tail
from infra.settings import Settings
from infra.topics import create_topics
from model import checkpoint
from streaming.kafka.source import read_all
from streaming.records import Tick, decode_owner
from streaming.state.model_versions import read_versions
from streaming.stores.list_client import key, owners_key
from streaming.topics import ACTIVITY, OWNERS, USER_EVENTS, topics
from tests.support.kafka import StartBroker
from tests.support.learn_flow import announced_versions, produce
from tests.support.learner import LogBuilder
from tests.support.workers import FlowProcess, numbered_events, read_activities, send_records

pytestmark = pytest.mark.long

LEASE_S: Final = 4.0
TIMEOUT_S: Final = 60.0


@pytest.fixture(scope="module")
def address(start_broker: StartBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_broker(tmp_path_factory.mktemp("takeover")) as found:
        yield found


class Machines:
    """Settings of two machines, and the processes on them."""

    def __init__(self, address: str, redis_url: str, folder: Path, prefix: str) -> None:
        shared: dict[str, Any] = {
            "bootstrap_servers": address, "redis_url": redis_url, "prefix": prefix, "metrics_port": 0,
            "event_partitions": 1, "epoch_seconds": 0.5, "checkpoint_seconds": 1, "lease_seconds": LEASE_S,
            "checkpoints": str(folder / "checkpoints"),
        }  # fmt: skip
        self.first, self.second = (Settings(data_dir=folder / name, **shared) for name in ("first", "second"))
        create_topics(self.first.kafka_config(), topics(1))
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, settings: Settings, flow: str) -> FlowProcess:
        made = FlowProcess(settings, flow, 1)
        self.processes.append(made.process)
        return made

    def owners(self) -> list[int]:
        """The numbers of the claims, in their order."""
        found = (decode_owner(one.value) for one in read_all(self.first.kafka_config(), OWNERS) if one.value)
        return [claim.number for claim in found]


@pytest.fixture
def machines(address: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Machines]:
    made = Machines(address, redis_url, tmp_path, request.node.originalname.removeprefix("test_")[:20])
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


def take_over(machines: Machines, flow: str, stalled: FlowProcess, has_written: Callable[[], bool]) -> FlowProcess:
    """Stop the process, start another one on the second machine, and wake the first one after the other has written."""
    os.kill(stalled.process.pid, signal.SIGSTOP)
    successor = machines.start(machines.second, flow)
    successor.wait_until("the new owner writes", has_written)
    os.kill(stalled.process.pid, signal.SIGCONT)
    assert stalled.process.wait(TIMEOUT_S) == FlowOwnedError.exit_code, log_tail(stalled.log, 30)
    assert f"The flow {flow} cannot continue. " in stalled.log.read_text(), log_tail(stalled.log, 30)
    assert "Traceback" not in stalled.log.read_text()
    return successor


def test_stalled_learner(machines: Machines) -> None:
    settings = machines.first
    log = LogBuilder(seed=5, d_text=256).add_rounds(20)
    log.write(Tick(ts=0), later=3_000)
    produce(settings, log.messages)
    first = machines.start(settings, "learn")
    first.wait_until("a version", lambda: bool(announced_versions(settings)))
    os.kill(first.process.pid, signal.SIGSTOP)
    known = len(log.messages)
    log.add_rounds(20)
    log.write(Tick(ts=0), later=6_000)
    produce(settings, log.messages[known:])  # the stalled process has fetched some of it
    before = announced_versions(settings)
    second = take_over(machines, "learn", first, lambda: len(announced_versions(settings)) > len(before) + 1)
    versions = announced_versions(settings)
    owners = [version.owner for version in versions]
    assert owners == sorted(owners)
    assert owners[0] < owners[-1]
    accepted = list(read_versions(settings.kafka_config()).values())
    assert accepted[: len(versions)] == versions  # none is left out
    manifests = [checkpoint.read_manifest(url) for url in checkpoint.list_checkpoints(settings.checkpoints_url())]
    assert manifests[-1]["owner"] == owners[-1]
    second.end()


@pytest.mark.extended
def test_stalled_features(machines: Machines) -> None:
    settings = machines.first
    send_records(settings, USER_EVENTS, numbered_events(0, 200))
    first = machines.start(settings, "features")
    first.wait_until("activity", lambda: len(read_activities(settings)) > 0)
    os.kill(first.process.pid, signal.SIGSTOP)
    send_records(settings, USER_EVENTS, numbered_events(200, 400))

    def offsets() -> set[int]:
        return {event.offset for activity in read_activities(settings) for event in activity.new}

    second = take_over(machines, "features", first, lambda: offsets() == set(range(400)))
    written = len(list(read_all(settings.kafka_config(), ACTIVITY)))
    time.sleep(1)
    added = list(read_all(settings.kafka_config(), ACTIVITY))[written:]
    assert [message for message in added if message.key is not None] == []  # ticks have no key
    second.end()


@pytest.mark.extended
def test_stalled_publish(machines: Machines, redis_url: str) -> None:
    settings, client = machines.first, Redis.from_url(redis_url, decode_responses=True)
    log = LogBuilder(seed=5, d_text=256).add_rounds(20)
    log.write(Tick(ts=0), later=3_000)
    produce(settings, log.messages)
    learner = machines.start(settings, "learn")
    first = machines.start(settings, "publish")
    default = key(None, settings.namespace)
    first.wait_until("lists", lambda: bool(client.exists(default)))
    number = str(client.hget(owners_key(settings.namespace), "0"))
    second = take_over(
        machines, "publish", first, lambda: str(client.hget(owners_key(settings.namespace), "0")) > number
    )
    assert str(client.hget(owners_key(settings.namespace), "0")) > number
    second.end()
    learner.end()


@pytest.mark.extended
def test_second_process_is_refused_while_the_first_one_runs(machines: Machines) -> None:
    first = machines.start(machines.first, "titles")
    first.wait_until("a claim", lambda: bool(machines.owners()))
    second = machines.start(machines.second, "titles")
    assert second.process.wait(TIMEOUT_S) == FlowOwnedError.exit_code, log_tail(second.log, 30)
    assert "It is running elsewhere, as titles/0 on" in second.log.read_text()
    first.end()
    third = machines.start(machines.second, "titles")
    third.wait_until("a higher number", lambda: max(machines.owners()) > min(machines.owners()))
    third.end()
