"""Processes of `publish` share the viewers: together they write what one would, and their group tells the least."""

import threading
import time
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition

from infra.run.peer_offsets import EVERY, MinOffset, PeerOffsets, group
from infra.run.publish import first
from infra.run.workers import ALONE, Worker
from infra.topics import create
from streaming.records import Forgotten
from streaming.state.publisher import Publisher, PublishSettings
from streaming.state.sharding import Shard
from streaming.stores.redis_lists import Erased, Item, Placed, Prediction, Withdrawn
from streaming.topics import Topic
from tests.support.publish import NOW, activity, by_user, do_all, recommender, world
from tests.support.publisher import ROOMY, more, new_title, unseen
from tests.support.streams import deadline, produce

SHARES = [Shard(worker, 3) for worker in range(3)]


def ready(share: Shard, settings: PublishSettings = ROOMY) -> Publisher:
    """A publisher of one share, which has read the whole log and serves the world's version."""
    publisher = Publisher(settings, share)
    publisher.titles.take(world().titles, live=False)
    for one in world().activities:
        publisher.remember(one)
    publisher.serve(0, recommender(), [])
    return publisher


def lists(items: list[Item]) -> dict[str | None, dict[int, list[str]]]:
    return {user: one.lists for user, one in by_user(items).items()}


def test_shares_write_together_what_one_process_writes() -> None:
    alone = do_all(ready(Shard()))
    shared = [do_all(ready(share)) for share in SHARES]
    written = [set(lists(items)) for items in shared]
    assert all(users - {None} for users in written)
    assert sum(map(len, written)) == len(set.union(*written))  # nobody is written by two
    assert {user: one for items in shared for user, one in lists(items).items()} == lists(alone)


def test_what_belongs_to_no_viewer_is_written_by_the_first_alone() -> None:
    first, second, third = (do_all(ready(share)) for share in SHARES)
    assert None in by_user(first)
    assert [item for item in first if isinstance(item, Withdrawn)] == [Withdrawn(frozenset())]
    for items in (second, third):
        assert None not in by_user(items)
        assert not [item for item in items if isinstance(item, Withdrawn)]


def test_who_acts_is_recomputed_by_the_share_that_holds_them() -> None:
    publishers = [ready(share) for share in SHARES]
    for publisher in publishers:
        do_all(publisher)
    user = sorted(world().newest())[0]
    one = more(user, *unseen(user)[:1])
    for share, publisher in zip(SHARES, publishers, strict=True):
        publisher.act(one, 5)
        assert list(by_user(do_all(publisher))) == ([user] if share.owns(user) else [])


def test_a_launch_is_tried_on_as_many_viewers_and_its_counts_add_up() -> None:
    told, entered = [], 0
    for share in SHARES:
        publisher = ready(share, PublishSettings(size=10, budget=1e6, asked=6))
        do_all(publisher)
        publisher.launch([new_title()])
        assert len([user for user in publisher.entering if user is not None]) <= 2  # a third of six
        items = do_all(publisher)
        entered += len([item for item in items if isinstance(item, Prediction)])
        told += [item for item in items if isinstance(item, Placed)]
    assert [(one.worker, one.workers) for one in told] == [(0, 3), (1, 3), (2, 3)]
    assert sum(one.entered for one in told) == entered > 0


def test_a_share_without_viewers_says_at_once_that_a_launch_entered_nothing() -> None:
    publisher = Publisher(ROOMY, Shard(1, 2))
    publisher.titles.take(world().titles, live=False)
    publisher.serve(0, recommender(), [])
    publisher.launch([new_title()])
    assert do_all(publisher) == [Placed(new_title().title, 0, 1, 2)]


def test_only_the_share_that_holds_a_forgotten_viewer_writes_the_tombstone_and_every_version_forgets() -> None:
    user = sorted(world().newest())[0]
    for share in SHARES:
        publisher = ready(share)
        do_all(publisher)
        publisher.forget(Forgotten(user=user, partition=0, offset=1001, appended=NOW))
        erased = [item for item in do_all(publisher) if isinstance(item, Erased)]
        assert erased == ([Erased(user, 1001)] if share.owns(user) else [])
        assert publisher.recommender is not None
        assert publisher.recommender.stream_state.user_store.user_index(user) == -1


def test_a_strangers_first_activity_is_of_one_share() -> None:
    one = activity("a stranger", [("t1", 0, 1)], 2000)
    assert [Publisher(ROOMY, share).remember(one) for share in SHARES].count(True) == 1


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    """Ends what the test started."""
    event = threading.Event()
    yield event
    event.set()


def test_the_group_is_at_the_smallest_position_and_nowhere_before_all_are_known(
    kafka: str, stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"bootstrap.servers": kafka}
    topic = f"shares-{uuid.uuid4().hex[:8]}"
    create(config, [Topic(topic, 1, {})])
    monkeypatch.setattr("infra.run.peer_offsets.GROUP", topic)  # a group of this test's own
    own = {0: 50}
    least = MinOffset(own, others := PeerOffsets(config, [topic], 3, stop), topic)
    commit(config, group(Worker(1, 3)), topic, 70)
    time.sleep(2 * EVERY)
    assert (least.get(0), dict(least)) == (None, {})  # the third has not said where it is
    commit(config, group(Worker(2, 3)), topic, 40)
    seen(least, 40)
    commit(config, group(Worker(2, 3)), topic, 90)
    seen(least, 50)
    own[0] = 80
    assert least.get(0) == 70
    assert least.get(1) is None
    assert others.groups == [f"{topic}-1-of-3", f"{topic}-2-of-3"]


def test_a_new_worker_begins_no_later_than_all_there_were(kafka: str, topic: str) -> None:
    config, most = {"bootstrap.servers": kafka}, 10
    for start in range(0, 100, 10):
        produce(config, topic, range(start, start + 10))
    old, new = Worker(0, 1), Worker(1, 2)
    assert 80 < first(config, topic, most, new) <= 90  # the last ten; Tansu's end is low by a batch
    commit(config, group(old), topic, 30)
    assert first(config, topic, most, new) == 30  # somebody may have asked after that to be forgotten
    commit(config, group(new), topic, 40)
    assert first(config, topic, most, new) == 40
    assert first(config, topic, most, old) == 30
    assert first(config, topic, None, new) == 0


def test_a_process_alone_is_at_its_own_position(stop: threading.Event) -> None:
    own = {0: 5}
    least = MinOffset(own, PeerOffsets({}, ["activity"], 1, stop), "activity")
    assert (least.get(0), dict(least), len(least)) == (5, {0: 5}, 1)
    assert group(ALONE) == group(Worker(0, 4)) == "publish"


def commit(config: dict[str, str], name: str, topic: str, offset: int) -> None:
    consumer = Consumer({**config, "group.id": name})
    consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
    consumer.close()


def seen(least: MinOffset, offset: int) -> None:
    """Wait, within bounds, until the smallest position is this."""
    late = deadline(30)
    while least.get(0) != offset:
        assert not late(), least.get(0)
        time.sleep(0.1)
