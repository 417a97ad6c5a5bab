"""The publisher at a request to erase a user: nothing of the user stays, and no earlier event returns."""

from msgspec import structs

from streaming.records import UserErasure
from streaming.state.publisher import Publisher
from streaming.stores.redis_lists import ErasedUser
from tests.support.publish import NOW, activity, predictions_by_user, recommender, work_until_idle, world
from tests.support.publisher import PLAY, UNLIMITED, new_title, next_activity, serving_publisher, unseen_titles


def erasure(user: str, appended: int) -> UserErasure:
    return UserErasure(user=user, partition=0, offset=0, appended=appended)


def test_erased_user_leaves_caches_queues_and_version() -> None:
    publisher = serving_publisher()
    work_until_idle(publisher)
    user, other = sorted(world().newest())[:2]
    publisher.on_activity(next_activity(user, *unseen_titles(user)[:1]), 0)
    publisher.on_launches([new_title()])
    user_index = publisher.users.user_indices[user]
    publisher.on_erasure(erasure(user, NOW + 9_000), 1)
    items = work_until_idle(publisher)
    assert [item for item in items if isinstance(item, ErasedUser)] == [ErasedUser(user, NOW + 9_000)]
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
    publisher.on_erasure(erasure(user, NOW + 1000), 0)
    back = activity(user, [("t1", NOW, PLAY)], 1002)
    publisher.on_activity(back, 0)
    assert predictions_by_user(work_until_idle(publisher))[user].events == 1
    for one in world().activities:  # `features` reprocesses its log from the start
        publisher.on_activity(one, 0)
    publisher.on_erasure(erasure(user, NOW + 1000), 0)
    publisher.on_activity(back, 0)
    known = publisher.users.get(user)
    assert known is not None
    assert (known.titles, known.events, known.positives, list(known.seen)) == (["t1"], 1, 1, ["t1"])


def test_later_events_that_precede_the_request_in_the_log_are_kept() -> None:
    publisher = serving_publisher()
    work_until_idle(publisher)
    user = sorted(world().newest())[0]
    later = next_activity(user, "t1", offset=1002)
    publisher.on_activity(later, 0)
    publisher.on_erasure(erasure(user, NOW + 1001), 1)
    publisher.on_activity(activity(user, [("t1", NOW, PLAY)], 1002), 2)  # `features` repeats the later events
    items = work_until_idle(publisher)
    known = publisher.users.get(user)
    assert known is not None
    assert known.titles == ["t1"]
    newest = predictions_by_user(items)[user]
    assert newest.events == 1
    assert newest.revision[0] == NOW + 1002


def test_version_from_before_the_request_is_served_without_the_user() -> None:
    publisher = serving_publisher()
    user, other = sorted(world().newest())[:2]
    publisher.on_erasure(erasure(user, NOW + 1000), 400)
    for version, position in ((1, 400), (2, 401)):
        publisher.serve(version, recommender(), [], position)
        assert publisher.recommender is not None
        known = publisher.recommender.stream_state.user_store
        assert (known.user_index(user) == -1) == (position <= 400)
        assert known.user_index(other) >= 0


def test_erasure_writes_a_tombstone_before_the_first_version() -> None:
    publisher = Publisher(UNLIMITED)
    publisher.on_erasure(erasure("nobody", 3), 0)
    assert publisher.seconds_until_work(NOW) == 0
    assert publisher.work(NOW) == [ErasedUser("nobody", 3)]
    assert publisher.seconds_until_work(NOW) is None


def test_requests_and_events_of_a_recreated_topic_take_effect() -> None:
    publisher, user = serving_publisher(), sorted(world().newest())[0]
    work_until_idle(publisher)
    publisher.on_erasure(structs.replace(erasure(user, NOW + 1000), source="topic-2"), 0)
    assert publisher.users.get(user) is None
    publisher.on_activity(structs.replace(activity(user, [("a", 1, PLAY)], 1), source="topic-2"), 5)
    assert predictions_by_user(work_until_idle(publisher))[user].events == 1
