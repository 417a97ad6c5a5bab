"""Who owns a worker of a flow: takeover, fencing numbers, and owners that stall, end or lose Kafka."""

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import structs

from infra.topics import create_topics
from streaming.errors import OwnedElsewhereError
from streaming.kafka import ownership
from streaming.kafka.ownership import Ownership, new_claim
from streaming.kafka.source import read_all
from streaming.records import decode_owner
from streaming.topics import OWNERS, topics
from tests.support.kafka import StartBroker
from tests.support.streams import deadline

LEASE_S = 1.0


@pytest.fixture(scope="module")
def address(start_broker: StartBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_broker(tmp_path_factory.mktemp("kafka")) as found:
        yield found


class Processes:
    """Ownerships on one topic `owners`, released at the end of the test."""

    def __init__(self, address: str, prefix: str) -> None:
        self.config = {"bootstrap.servers": address, "premiere.prefix": prefix}
        create_topics(self.config, [topic for topic in topics() if topic.name == OWNERS])
        self.owners: list[Ownership] = []

    def start(self, instance: str, worker: int = 0, workers: int = 1, **given: Any) -> Ownership:
        claim = new_claim("features", worker, workers, instance, given.pop("minimum", 0))
        owner = Ownership(self.config, claim, threading.Event(), **{"lease_s": LEASE_S, **given})
        self.owners.append(owner)
        owner.acquire()
        return owner

    def stall(self, owner: Ownership) -> None:
        """The process renews nothing more, as after SIGSTOP."""
        owner._ended.set()


@pytest.fixture
def processes(address: str, request: pytest.FixtureRequest) -> Iterator[Processes]:
    made = Processes(address, f"t{abs(hash(request.node.nodeid))}")
    yield made
    for owner in made.owners:
        owner.release()


def wake(owner: Ownership) -> None:
    """The stalled process continues: its thread renews again."""
    owner._ended.clear()
    threading.Thread(target=owner._renew_until_ended, daemon=True).start()


def test_running_owner_is_not_replaced(processes: Processes) -> None:
    owner = processes.start("a")
    with pytest.raises(OwnedElsewhereError, match="running elsewhere, as features/0 on"):
        processes.start("b")
    owner.check()
    assert not owner.stop.is_set()


def test_released_owner_is_replaced_at_once(processes: Processes) -> None:
    first = processes.start("a")
    first.release()
    second = processes.start("b", lease_s=600)
    assert second.number > first.number
    second.check()


def test_process_of_the_same_folder_takes_over_at_once(processes: Processes) -> None:
    first = processes.start("a")
    processes.stall(first)
    second = processes.start("a", lease_s=600)
    assert second.number > first.number


def test_stalled_owner_is_replaced_and_may_not_write_when_it_wakes(processes: Processes) -> None:
    first = processes.start("a")
    processes.stall(first)
    second = processes.start("b")
    assert not first._is_valid()  # before it has read anything
    wake(first)
    with pytest.raises(OwnedElsewhereError, match=f"owner {second.number}"):
        first.check()
    is_late = deadline(10)
    while not (first.stop.is_set() or is_late()):
        time.sleep(0.05)
    assert first.stop.is_set()
    second.check()
    with pytest.raises(OwnedElsewhereError):  # it was started again by its supervisor
        processes.start("a")


def test_owner_that_stalled_without_successor_continues(processes: Processes) -> None:
    owner = processes.start("a")
    processes.stall(owner)
    time.sleep(LEASE_S)
    assert not owner._is_valid()
    wake(owner)
    owner.check()


def test_two_processes_that_start_together_have_one_owner(processes: Processes) -> None:
    made = [Ownership(processes.config, new_claim("features", 0, 1, name), threading.Event(), LEASE_S) for name in "ab"]
    processes.owners += made
    refused: list[Exception] = []

    def acquire(owner: Ownership) -> None:
        try:
            owner.acquire()
        except OwnedElsewhereError as error:
            refused.append(error)
            owner._ended.set()

    threads = [threading.Thread(target=acquire, args=(owner,)) for owner in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    is_late = deadline(10)
    while sum(owner.successor is not None for owner in made) + len(refused) < 1 and not is_late():
        time.sleep(0.05)
    valid = [owner for owner in made if owner._is_valid()]
    assert len(valid) == 1
    assert valid[0].number == max(owner.number for owner in made)


def test_workers_of_one_group_do_not_replace_each_other(processes: Processes) -> None:
    owners = [processes.start("a", worker, 2) for worker in (0, 1)]
    time.sleep(LEASE_S)
    for owner in owners:
        owner.check()
    for owner in owners:
        processes.stall(owner)
    single = processes.start("b", 0, 1)  # another number of workers divides the work differently
    for owner in owners:
        wake(owner)
        with pytest.raises(OwnedElsewhereError):
            owner.check()
    single.check()


def test_number_rises_even_if_the_clock_is_behind(processes: Processes) -> None:
    ahead = round(time.time() * 1000) + 3_600_000
    first = processes.start("a", minimum=ahead)
    first.release()
    second = processes.start("b")
    assert (first.number, second.number) == (ahead, ahead + 1)


def test_late_renewal_of_a_replaced_owner_is_ignored(processes: Processes) -> None:
    first = processes.start("a")
    processes.stall(first)
    second = processes.start("b")
    first._claims.write(
        structs.replace(first.claim, renewal=99), 10
    )  # it was in the client's queue when the process stalled
    time.sleep(LEASE_S)
    second.check()
    records = [decode_owner(message.value) for message in read_all(processes.config, OWNERS) if message.value]
    assert max(record.number for record in records) == second.number


def test_renewal_that_never_returns_is_given_up(
    processes: Processes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    owner, released, hanging = processes.start("a"), threading.Event(), threading.Event()
    exchange = owner._claims._exchange

    def hang(*arguments: Any) -> Any:
        hanging.set()
        released.wait(60)
        return exchange(*arguments)

    monkeypatch.setattr(ownership, "EXCHANGE_TIMEOUT_S", 1.0)
    monkeypatch.setattr(owner._claims, "_exchange", hang)
    assert hanging.wait(30)
    is_late = deadline(30)
    with caplog.at_level(logging.WARNING):
        owner.check()  # before, and while the client hangs
        time.sleep(LEASE_S / 2)
        owner.check()
    assert not is_late()
    messages = [record.getMessage() for record in caplog.records if "claim on features/0" in record.getMessage()]
    assert [message.split(" the claim")[0] for message in messages] == [
        "Waiting for Kafka to confirm",
        "Kafka confirms",
    ]
    claim = owner.claim
    released.set()  # the earlier attempt continues, too late
    time.sleep(LEASE_S)
    owner.check()
    assert (owner.successor, owner.claim.number) == (None, claim.number)
    assert owner.claim.renewal > claim.renewal
