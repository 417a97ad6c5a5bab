"""Announcements are queued, held back or released by their cause, and versions that cannot be loaded are skipped."""

from collections.abc import Iterator, Sequence
from typing import Literal

import pytest
from msgspec import structs
from prometheus_client import REGISTRY

from model.checkpoint import CheckpointError
from model.recommender import Recommender
from streaming.records import Title, Version
from streaming.state.publisher import Publisher
from streaming.state.version_loader import MAX_QUEUED_VERSIONS, Announced, VersionLoader
from tests.support.publish import recommender


def announced(
    number: int,
    step: int | None = None,
    cause: Literal["learned", "rollback", "rollforward"] = "learned",
    automatic: bool = False,
) -> Announced:
    """A version whose training step is its number, unless given."""
    step = number if step is None else step
    version = Version(path=f"v{number}", step=step, position=0, learned=step, mrr=None, created=0, cause=cause)
    return Announced(number, structs.replace(version, automatic=automatic))


def load(url: str, newer: Sequence[Title]) -> Recommender:
    """Only the versions in `COMPLETE` can be loaded."""
    if url not in COMPLETE:
        raise CheckpointError(f"The checkpoint at {url} is damaged.")
    return recommender()


COMPLETE: set[str] = set()


@pytest.fixture(autouse=True)
def no_complete_version() -> Iterator[None]:
    COMPLETE.clear()
    yield
    COMPLETE.clear()


def numbers(versions: Sequence[Announced]) -> list[int]:
    return [version.number for version in versions]


def run(loader: VersionLoader) -> None:
    while loader.loading:
        loader.wait()
        loader.step()


def test_learned_versions_are_queued_oldest_first() -> None:
    loader = VersionLoader(Publisher(), load, [announced(n) for n in range(MAX_QUEUED_VERSIONS + 2)])
    assert numbers(loader.queue) == list(range(2, MAX_QUEUED_VERSIONS + 2))


def test_rollback_holds_back_later_versions_until_a_rollforward() -> None:
    loader = VersionLoader(Publisher(), load, [announced(0), announced(1), announced(2)])
    loader.add([announced(3, step=1, cause="rollback"), announced(4)])
    assert (numbers(loader.queue), numbers(loader.held_back)) == ([0, 3], [1, 2, 4])
    assert REGISTRY.get_sample_value("premiere_rollback_version") == 3
    loader.add([announced(5, step=4, cause="rollforward")])
    assert (numbers(loader.queue), numbers(loader.held_back)) == ([0, 3, 1, 2, 4, 5], [])
    assert REGISTRY.get_sample_value("premiere_rollback_version") == -1


def test_newest_complete_version_is_served() -> None:
    skipped = REGISTRY.get_sample_value("premiere_versions_skipped_total") or 0.0
    COMPLETE.update({"v0", "v1"})
    publisher = Publisher()
    run(VersionLoader(publisher, load, [announced(n) for n in range(4)]))
    assert publisher.version == 1
    assert REGISTRY.get_sample_value("premiere_versions_skipped_total") == skipped + 2


def test_versions_that_are_old_when_they_are_loaded_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    COMPLETE.update({"v0", "v1", "v2"})
    loader = VersionLoader(Publisher(), load, [announced(0)])
    for number in (1, 2):  # during each of two loads
        loader.step()  # serves the one before, and starts the next load
        loader.add([announced(number)])
        while loader._current is not None and not loader._current.future.done():
            loader.wait()
    run(loader)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [("Version 1 took" in line, "version 2 is waiting" in line) for line in warnings] == [(True, True)]


def test_version_older_than_the_one_in_use_is_not_loaded() -> None:
    COMPLETE.update({"v2"})
    publisher = Publisher()
    loader = VersionLoader(publisher, load, [announced(2)])
    run(loader)
    COMPLETE.update({"v1"})
    loader.add([announced(1)])
    run(loader)
    assert publisher.version == 2


def test_automatic_rollback_ends_with_the_next_learned_version() -> None:
    COMPLETE.update({"v1", "v3", "v4"})
    loader = VersionLoader(Publisher(), load, [announced(0), announced(1), announced(2)])
    loader.add([announced(3, step=1, cause="rollback", automatic=True)])
    run(loader)
    assert loader.publisher.version == 3
    assert numbers(loader.held_back) == [1, 2]
    loader.add([announced(4)])
    run(loader)
    assert (loader.publisher.version, loader.rollback) == (4, None)
    assert not loader.held_back


def test_automatic_rollback_does_not_replace_one_by_an_operator() -> None:
    COMPLETE.update({"v1", "v2"})
    loader = VersionLoader(Publisher(), load, [announced(0), announced(1)])
    loader.add([announced(2, step=0, cause="rollback"), announced(3)])
    loader.add([announced(4, step=1, cause="rollback", automatic=True), announced(5)])
    run(loader)
    assert loader.publisher.version == 2
    assert loader.rollback is not None
    assert (loader.rollback.number, numbers(loader.held_back)) == (2, [0, 1, 3, 5])


def test_older_version_replaces_the_target_of_a_long_past_rollback() -> None:
    COMPLETE.add("v3")
    history = [announced(n) for n in range(60)] + [announced(60, step=5, cause="rollback")]
    loader = VersionLoader(Publisher(), load, history)
    assert numbers(loader.queue) == [0, 1, 2, 3, 4, 60]
    run(loader)
    assert loader.publisher.version == 3


def test_version_that_loads_while_a_rollback_arrives_is_held_back() -> None:
    COMPLETE.update({"v0", "v1", "v2", "v3"})
    loader = VersionLoader(Publisher(), load, [announced(0), announced(1)])
    loader.step()  # begins to load version 1
    loader.add([announced(2, step=0, cause="rollback")])
    run(loader)
    assert (loader.publisher.version, numbers(loader.held_back)) == (2, [0, 1])
