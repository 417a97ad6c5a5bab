"""The publisher at a request to erase a user: nothing of the user stays, and no earlier event returns."""

from msgspec import structs

from streaming.records import UserErasure
from streaming.state.publisher import Publisher
from streaming.stores.redis_lists import ErasedUser
from tests.support.publish import NOW, activity, predictions_by_user, work_until_idle, world
from tests.support.publisher import PLAY, UNLIMITED, new_title, next_activity, serving_publisher, unseen_titles


def erasure(user: str, offset: int) -> UserErasure:
    return UserErasure(user=user, partition=0, offset=offset, appended=NOW)


def test_erased_user_leaves_caches_queues_and_version() -> None:
    publisher = serving_publisher()
    work_until_idle(publisher)
    user, other = sorted(world().newest())[:2]
    publisher.on_activity(next_activity(user, *unseen_titles(user)[:1]), 0)
    publisher.on_launches([new_title()])
    user_index = publisher.users.user_indices[user]
    publisher.on_erasure(erasure(user, 1001))
    items = work_until_idle(publisher)
    assert [item for item in items if isinstance(item, ErasedUser)] == [ErasedUser(user, 1001)]
    assert user not in predictions_by_user(items)
    assert publisher.users.get(user) is None
    assert user not in publisher.users.users
    assert not publisher.users.query_UP[user_index].any()
    assert publisher.users.get(other) is not None
    assert publisher.recommender is not None
    assert publisher.recommender.stream_state.user_store.user_index(user) == -1


def test_erased_user_who_returns_is_new_despite_reprocessing() -> None:
    publisher = serving_publisher()
    work_until_idle(publisher)
    user = sorted(world().newest())[0]
    publisher.on_erasure(erasure(user, 1000))
    back = activity(user, [("t1", NOW, PLAY)], 1002)
    publisher.on_activity(back, 0)
    assert predictions_by_user(work_until_idle(publisher))[user].events == 1
    for one in world().activities:  # `features` reprocesses its log from the start
        publisher.on_activity(one, 0)
    publisher.on_erasure(erasure(user, 1000))
    publisher.on_activity(back, 0)
    known = publisher.users.get(user)
    assert known is not None
    assert (known.titles, known.events, known.positives, list(known.seen)) == (["t1"], 1, 1, ["t1"])


def test_erasure_writes_a_tombstone_before_the_first_version() -> None:
    publisher = Publisher(UNLIMITED)
    publisher.on_erasure(erasure("nobody", 3))
    assert publisher.seconds_until_work(NOW) == 0
    assert publisher.work(NOW) == [ErasedUser("nobody", 3)]
    assert publisher.seconds_until_work(NOW) is None


def test_requests_and_events_of_a_recreated_topic_take_effect() -> None:
    publisher, user = serving_publisher(), sorted(world().newest())[0]
    work_until_idle(publisher)
    publisher.on_erasure(structs.replace(erasure(user, 0), source="topic-2"))
    assert publisher.users.get(user) is None
    publisher.on_activity(structs.replace(activity(user, [("a", 1, PLAY)], 1), source="topic-2"), 5)
    items = work_until_idle(publisher)
    assert ErasedUser(user, 0, "topic-2") in items
    assert (predictions_by_user(items)[user].source, predictions_by_user(items)[user].events) == ("topic-2", 1)
