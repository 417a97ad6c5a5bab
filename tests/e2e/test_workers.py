"""Flows as several processes: shared, killed, rescaled 1 -> 2 -> 1, and nothing is lost or doubled.

A stack of the module's own, for the topics' names are fixed: what `features` leaves there `publish` reads.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from infra.local.services import services
from infra.settings import Settings
from streaming import topics as t
from streaming.kafka.source import read_all
from streaming.records import Launch, Title, decode_title, to_json
from streaming.state.sharding import Shard
from streaming.stores.redis_lists import DEFAULT, WITHDRAWN, key
from tests.support.trained_version import DATA, version
from tests.support.workers import (
    FIELDS,
    activities,
    committed,
    events,
    learned,
    offline,
    online,
    send,
    sending,
    team,
    undisturbed,
    waiting,
)

pytestmark = pytest.mark.long

SENT = 4000  # events in all


@pytest.fixture(scope="module")
def stack(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A broker and a Redis of this module's own; short epochs, so that a kill falls between many."""
    folder = tmp_path_factory.mktemp("workers")
    with services(Settings(data_dir=folder, bootstrap_servers="", metrics_port=0, epoch_seconds=0.3)) as settings:
        yield settings


@pytest.fixture(scope="module")
def disturbed(stack: Settings) -> Settings:
    """`features` took all events as 1, then 2 processes of which one was killed while more came, then 1."""
    send(stack, t.USER_EVENTS, events(0, 800))
    with team(stack, "features", 1) as alone:
        alone.until("the first events", lambda: committed(stack, "features") == 800)
    with team(stack, "features", 2) as two, sending(stack, t.USER_EVENTS, events(800, SENT)):
        two.until("shared work", lambda: committed(stack, "features") >= 1000)
        assert "of features was killed by signal 9, so the others were stopped" in two.kill(1)
        done = committed(stack, "features")
        assert len(learned(activities(stack))) >= done < SENT  # in the midst
    with team(stack, "features", 1) as alone:
        alone.until("the rest", lambda: committed(stack, "features") == SENT)
    return stack


def test_events_shared_killed_and_rescaled_are_each_counted_once(disturbed: Settings) -> None:
    want = undisturbed(disturbed)
    assert len(want.rows()) == SENT
    assert len({at[0] for at in want.rows()}) == 8  # every partition was in it
    assert offline(disturbed) == dict.fromkeys(want.rows(), 1)
    assert learned(activities(disturbed)) == dict.fromkeys(want.rows(), 1)
    newest = {row["user_id"]: row for row in want.online.all()}
    assert online(disturbed, list(newest)) == {
        user: tuple(row[field] for field in FIELDS) for user, row in newest.items()
    }
    assert waiting(disturbed, "features") == 0


def test_titles_shared_and_killed_are_each_known_as_by_one_process(stack: Settings) -> None:
    launches = [(launch.title, to_json(launch)) for launch in DATA.launches]
    again = Launch(title=DATA.launches[0].title, withdrawn=True)
    send(stack, t.TITLE_LAUNCHES, launches[:20])
    with team(stack, "titles", 2) as two:
        two.until("the first launches", lambda: committed(stack, "titles") == 20)
        send(stack, t.TITLE_LAUNCHES, launches[20:])
        two.kill(0)
    with team(stack, "titles", 1) as alone:
        send(stack, t.TITLE_LAUNCHES, [(again.title, to_json(again))])
        alone.until("all launches", lambda: committed(stack, "titles") == len(launches) + 1)
    known: dict[tuple[str, int], Title] = {}
    for message in read_all(stack.kafka(), t.TITLES):
        title = decode_title(message.value or b"")
        first = known.setdefault((title.title, title.stamp), title)
        assert first == title  # what a replay writes again is the same
    assert {name for name, _ in known} == {launch.title for launch in DATA.launches}
    assert [title.title for title in known.values() if title.withdrawn] == [again.title]
    assert len(known) == len(launches) + 1


def test_viewers_of_all_shares_are_served_whatever_the_number_of_processes(disturbed: Settings, tmp_path: Path) -> None:
    stack, want = disturbed, {activity.user: activity.count for activity in activities(disturbed)}
    assert {Shard(0, 2).owns(user) for user in want} == {True, False}
    send(stack, t.MODEL_VERSIONS, [("", to_json(version(stack, tmp_path)))])
    client: Any = redis.Redis.from_url(stack.redis(), decode_responses=True)

    def served() -> bool:
        """Whether everybody's list knows all that the viewer did, and the group says that nothing waits."""
        known = {user: int(client.hget(key(user), "events") or 0) for user in want}
        return known == want and waiting(stack, "publish") == 0

    for workers in (2, 1):
        client.delete(DEFAULT, *map(key, want))
        with team(stack, "publish", workers) as running:
            running.until(f"every viewer's list by {workers} workers", served)
            assert client.exists(DEFAULT)
            if workers == 2:
                assert "of publish was killed by signal 9" in running.kill(1)
    assert client.smembers(WITHDRAWN) == {DATA.launches[0].title}
