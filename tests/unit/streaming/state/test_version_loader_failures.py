"""A version that cannot be loaded never ends the flow: it is skipped, counted, and tried again if that may help."""

import logging
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import pytest
from msgspec import structs
from prometheus_client import REGISTRY

from model.checkpoint import CheckpointError
from model.recommender import Recommender
from streaming.records import Title, Version
from streaming.state.publisher import Publisher
from streaming.state.user_cache import NO_VERSION
from streaming.state.version_loader import (
    FIRST_RETRY_S,
    MAX_ABANDONED_LOADS,
    MAX_QUEUED_VERSIONS,
    MAX_RETRY_S,
    Announced,
    VersionLoader,
)
from tests.support.publish import recommender, world

TIMEOUT_S = 30.0  # by the clock of the storage
MAX_HANG_S = 60.0  # real time, so that a loader without a timeout fails the test
PASSING = [
    PermissionError(13, "denied"),
    OSError(5, "input/output error"),
    RuntimeError("S3: slow down"),
    MemoryError(),
]
PERMANENT = [ImportError("install s3fs"), KeyError("weights"), ValueError("shape"), CheckpointError("It is damaged.")]


def announced(number: int, cause: Literal["learned", "rollback"] = "learned", step: int | None = None) -> Announced:
    step = number if step is None else step
    version = Version(path=f"v{number}", step=step, position=0, learned=step, mrr=None, created=0, cause=cause)
    return Announced(number, version)


class Storage:
    """Loads versions unless an error or a hang is set for their URL; its clock stands still between two calls."""

    def __init__(self) -> None:
        self.now, self.errors, self.tries = 0.0, dict[str, Exception](), list[str]()
        self.hangs: dict[str, threading.Event] = {}

    def load(self, url: str, _newer: Sequence[Title]) -> Recommender:
        self.tries.append(url)
        if url in self.hangs:
            self.hangs[url].wait(MAX_HANG_S)
        if url in self.errors:
            raise self.errors[url]
        return recommender()

    def hang(self, *urls: str) -> None:
        self.hangs = {url: threading.Event() for url in urls}

    def release(self) -> None:
        for event in self.hangs.values():
            event.set()


@pytest.fixture
def storage() -> Iterator[Storage]:
    storage = Storage()
    yield storage
    storage.release()


def loader_of(storage: Storage, *numbers: int) -> VersionLoader:
    versions = [announced(number) for number in numbers]
    return VersionLoader(Publisher(), storage.load, versions, timeout_s=TIMEOUT_S, clock=lambda: storage.now)


def run(loader: VersionLoader) -> None:
    """Run until nothing is due."""
    loader.step()
    while loader.loading:
        loader.wait()
        loader.step()


def start_hanging(loader: VersionLoader, storage: Storage, tries: int) -> None:
    """Start the next load, and wait until it hangs."""
    loader.step()
    while len(storage.tries) < tries:
        loader.wait()


def skipped() -> float:
    return REGISTRY.get_sample_value("premiere_versions_skipped_total") or 0.0


@pytest.mark.parametrize("error", [*PASSING, *PERMANENT], ids=lambda error: type(error).__name__)
def test_any_error_of_a_load_leaves_the_served_version_in_service(
    storage: Storage, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    loader = loader_of(storage, 5)
    run(loader)
    served, before = loader.publisher.recommender, skipped()
    storage.errors["v6"] = error
    loader.add([announced(6)])
    run(loader)
    assert (loader.publisher.version, loader.publisher.recommender) == (5, served)
    assert skipped() == before + 1
    assert [record.levelno for record in caplog.records if "version 6" in record.message] == [logging.WARNING]
    loader.add([announced(7)])
    run(loader)
    assert loader.publisher.version == 7


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_error_that_may_pass_is_retried_with_back_off(storage: Storage, error: Exception) -> None:
    storage.errors["v6"], before = error, skipped()
    loader = loader_of(storage, 5, 6)
    run(loader)
    assert (loader.publisher.version, storage.tries) == (5, ["v6", "v5"])
    tried_at = [0.0]
    for _ in range(320):
        storage.now, before_now = storage.now + FIRST_RETRY_S, len(storage.tries)
        run(loader)
        tried_at += [storage.now] * (len(storage.tries) - before_now)
    waits = [later - earlier for earlier, later in pairwise(tried_at)]
    assert waits == [min(FIRST_RETRY_S * 2**n, MAX_RETRY_S) for n in range(10)]
    del storage.errors["v6"]
    storage.now += MAX_RETRY_S
    run(loader)
    assert loader.publisher.version == 6
    assert skipped() == before + 1  # a version counts once


@pytest.mark.parametrize("error", PERMANENT, ids=lambda error: type(error).__name__)
def test_error_that_cannot_pass_is_not_retried(storage: Storage, error: Exception) -> None:
    storage.errors["v6"] = error
    loader = loader_of(storage, 6)
    run(loader)
    storage.now += 1e6
    run(loader)
    assert storage.tries == ["v6"]


def test_version_is_not_retried_after_a_later_one_is_served(storage: Storage) -> None:
    storage.errors["v6"] = OSError("no storage")
    loader = loader_of(storage, 6)
    run(loader)
    loader.add([announced(7)])
    run(loader)
    storage.now += 1e6
    run(loader)
    assert (storage.tries, loader.publisher.version, len(loader.queue)) == (["v6", "v7"], 7, 0)


def test_long_storage_outage_keeps_a_bounded_queue_of_the_newest_versions(storage: Storage) -> None:
    last = 3 * MAX_QUEUED_VERSIONS
    storage.errors = {f"v{number}": OSError("no storage") for number in range(last)}
    loader = loader_of(storage)
    for number in range(last):
        loader.add([announced(number)])
        run(loader)
        storage.now += 5
    assert [one.number for one in loader.queue] == list(range(last - MAX_QUEUED_VERSIONS, last))
    storage.errors.clear()
    storage.now += MAX_RETRY_S
    run(loader)
    assert loader.publisher.version == last - 1


def test_rollback_holds_back_a_version_that_waits_for_a_retry(storage: Storage) -> None:
    storage.errors["v6"] = OSError("no storage")
    loader = loader_of(storage, 5, 6)
    run(loader)
    loader.add([announced(7, "rollback", step=5)])
    storage.errors.clear()
    storage.now += 1e6
    run(loader)
    assert (loader.publisher.version, [one.number for one in loader.held_back]) == (7, [6])


def test_version_that_cannot_be_served_is_skipped(storage: Storage) -> None:
    """A title whose year is no number makes `serve` fail, before it changes anything."""
    loader = loader_of(storage, 5)
    run(loader)
    served = loader.publisher.recommender
    damaged = structs.replace(world().titles[0], title="damaged", year="no year")  # type: ignore[arg-type]
    loader.publisher.titles.update([damaged])
    loader.add([announced(6)])
    run(loader)
    assert (loader.publisher.version, loader.publisher.recommender) == (5, served)


def test_load_that_hangs_is_abandoned_after_the_timeout(storage: Storage) -> None:
    storage.hang("v6")
    before = skipped()
    loader = loader_of(storage, 5, 6)
    start_hanging(loader, storage, tries=1)
    storage.now += TIMEOUT_S - 1
    loader.step()
    assert storage.tries == ["v6"]
    storage.now += 1
    run(loader)
    assert (loader.publisher.version, storage.tries) == (5, ["v6", "v5"])
    assert skipped() == before + 1
    storage.release()
    storage.now += FIRST_RETRY_S
    run(loader)
    assert (loader.publisher.version, storage.tries) == (6, ["v6", "v5", "v6"])


def test_rollback_drops_a_later_version_that_hangs(storage: Storage) -> None:
    storage.hang("v6")
    storage.errors["v7"] = CheckpointError("It is damaged.")
    loader = loader_of(storage, 6)
    start_hanging(loader, storage, tries=1)
    loader.add([announced(7, "rollback", step=5)])
    storage.now += TIMEOUT_S
    loader.step()
    storage.release()
    storage.now += 1e6
    run(loader)
    assert (loader.publisher.version, storage.tries) == (NO_VERSION, ["v6", "v7"])


def test_hanging_loads_are_bounded_and_do_not_keep_the_process_alive(storage: Storage) -> None:
    numbers = range(MAX_ABANDONED_LOADS + 2)
    storage.hang(*(f"v{number}" for number in numbers))
    loader = loader_of(storage, *numbers)
    for tries in range(1, MAX_ABANDONED_LOADS + 1):
        start_hanging(loader, storage, tries)
        storage.now += TIMEOUT_S
        loader.step()
    assert (len(storage.tries), loader.loading) == (MAX_ABANDONED_LOADS, False)
    threads = [thread for thread in threading.enumerate() if thread.name == "version-loader"]
    assert len(threads) >= MAX_ABANDONED_LOADS
    assert all(thread.daemon for thread in threads)
    storage.release()
    for thread in threads:
        thread.join()
    run(loader)
    assert loader.publisher.version == numbers[-1]
