"""Sharded publishers together write the lists of a single process, each for the users of its shard."""

from streaming.records import UserErasure
from streaming.state.publish_settings import PublishSettings
from streaming.state.publisher import Publisher
from streaming.state.sharding import Shard
from streaming.stores.redis_lists import ErasedUser, LaunchCompleted, Prediction, RedisWrite, WithdrawnTitles
from tests.support.publish import NOW, activity, predictions_by_user, recommender, work_until_idle, world
from tests.support.publisher import UNLIMITED, new_title, next_activity, unseen_titles

SHARDS = [Shard(worker, 3) for worker in range(3)]


def sharded_publisher(shard: Shard, settings: PublishSettings = UNLIMITED) -> Publisher:
    """A publisher of one shard that has read the whole log and serves the world's model version."""
    publisher = Publisher(settings, shard)
    publisher.titles.update(world().titles, at_startup=True)
    for one in world().activities:
        publisher.update_cache(one, 0)
    publisher.serve(0, recommender(), [])
    return publisher


def lists(items: list[RedisWrite]) -> dict[str | None, dict[int, list[str]]]:
    return {user: one.lists for user, one in predictions_by_user(items).items()}


def test_shards_write_same_lists_as_single_process() -> None:
    single = work_until_idle(sharded_publisher(Shard()))
    sharded = [work_until_idle(sharded_publisher(shard)) for shard in SHARDS]
    written = [set(lists(items)) for items in sharded]
    assert all(users - {None} for users in written)
    assert sum(map(len, written)) == len(set.union(*written))  # no user is written twice
    assert {user: one for items in sharded for user, one in lists(items).items()} == lists(single)


def test_only_primary_shard_writes_shared_keys() -> None:
    first, second, third = (work_until_idle(sharded_publisher(shard)) for shard in SHARDS)
    assert None in predictions_by_user(first)
    withdrawn = WithdrawnTitles(frozenset(), world().titles[-1].stamp)
    assert [item for item in first if isinstance(item, WithdrawnTitles)] == [withdrawn]
    for items in (second, third):
        assert None not in predictions_by_user(items)
        assert not [item for item in items if isinstance(item, WithdrawnTitles)]


def test_active_user_is_recomputed_by_owning_shard() -> None:
    publishers = [sharded_publisher(shard) for shard in SHARDS]
    for publisher in publishers:
        work_until_idle(publisher)
    user = sorted(world().newest())[0]
    new = next_activity(user, *unseen_titles(user)[:1])
    for shard, publisher in zip(SHARDS, publishers, strict=True):
        publisher.on_activity(new, 5)
        assert list(predictions_by_user(work_until_idle(publisher))) == ([user] if shard.owns(user) else [])


def test_launch_fanout_is_split_between_shards() -> None:
    placements, entered = [], 0
    for shard in SHARDS:
        publisher = sharded_publisher(shard, PublishSettings(list_size=10, refresh_budget=1e6, launch_fanout=6))
        work_until_idle(publisher)
        publisher.on_launches([new_title()])
        assert len([user for user in publisher.launch_queue if user is not None]) <= 2  # one third of the fan-out
        items = work_until_idle(publisher)
        entered += len([item for item in items if isinstance(item, Prediction)])
        placements += [item for item in items if isinstance(item, LaunchCompleted)]
    assert [(one.worker, one.workers) for one in placements] == [(0, 3), (1, 3), (2, 3)]
    assert sum(one.entered for one in placements) == entered > 0


def test_shard_without_users_reports_launch_without_entries() -> None:
    publisher = Publisher(UNLIMITED, Shard(1, 2))
    publisher.titles.update(world().titles, at_startup=True)
    publisher.serve(0, recommender(), [])
    publisher.on_launches([new_title()])
    assert work_until_idle(publisher) == [LaunchCompleted(new_title().title, 0, 1, 2)]


def test_only_owning_shard_writes_tombstone_of_erased_user() -> None:
    user = sorted(world().newest())[0]
    for shard in SHARDS:
        publisher = sharded_publisher(shard)
        work_until_idle(publisher)
        publisher.on_erasure(UserErasure(user=user, partition=0, offset=1001, appended=NOW), 0)
        erased = [item for item in work_until_idle(publisher) if isinstance(item, ErasedUser)]
        assert erased == ([ErasedUser(user, NOW)] if shard.owns(user) else [])
        assert publisher.recommender is not None
        assert publisher.recommender.stream_state.user_store.user_index(user) == -1


def test_new_user_belongs_to_one_shard() -> None:
    one = activity("new user", [("t1", 0, 1)], 2000)
    assert [Publisher(UNLIMITED, shard).update_cache(one, 0) for shard in SHARDS].count(True) == 1
