"""The publisher when a viewer asks to be forgotten: nothing stays, and nothing of before returns."""

from streaming.records import Forgotten
from streaming.state.publisher import Publisher
from streaming.stores.redis_lists import Erased
from tests.support.publish import NOW, activity, by_user, do_all, world
from tests.support.publisher import PLAY, ROOMY, more, new_title, ready, unseen


def forgotten(user: str, offset: int) -> Forgotten:
    return Forgotten(user=user, partition=0, offset=offset, appended=NOW)


def test_a_forgotten_viewer_is_unknown_and_nothing_is_made_for_them_any_more() -> None:
    publisher = ready()
    do_all(publisher)
    user, other = sorted(world().newest())[:2]
    publisher.act(more(user, *unseen(user)[:1]), 0)
    publisher.launch([new_title()])
    user_index = publisher.viewers.user_indices[user]
    publisher.forget(forgotten(user, 1001))
    items = do_all(publisher)
    assert [item for item in items if isinstance(item, Erased)] == [Erased(user, 1001)]
    assert user not in by_user(items)
    assert publisher.viewers.get(user) is None
    assert user not in publisher.viewers.users
    assert not publisher.viewers.query_UP[user_index].any()
    assert publisher.viewers.get(other) is not None
    assert publisher.recommender is not None
    assert publisher.recommender.stream_state.user_store.user_index(user) == -1


def test_a_viewer_who_comes_back_is_new_and_what_was_before_does_not_return() -> None:
    publisher = ready()
    do_all(publisher)
    user = sorted(world().newest())[0]
    publisher.forget(forgotten(user, 1000))
    back = activity(user, [("t1", NOW, PLAY)], 1002)
    publisher.act(back, 0)
    assert by_user(do_all(publisher))[user].events == 1
    for one in world().activities:  # `features` begins again at the log's beginning
        publisher.act(one, 0)
    publisher.forget(forgotten(user, 1000))
    publisher.act(back, 0)
    known = publisher.viewers.get(user)
    assert known is not None
    assert (known.titles, known.events, known.targets, list(known.seen)) == (["t1"], 1, 1, ["t1"])


def test_a_request_to_forget_is_passed_on_before_the_first_version_and_for_a_stranger() -> None:
    publisher = Publisher(ROOMY)
    publisher.forget(forgotten("nobody", 3))
    assert publisher.wait(NOW) == 0
    assert publisher.work(NOW) == [Erased("nobody", 3)]
    assert publisher.wait(NOW) is None
