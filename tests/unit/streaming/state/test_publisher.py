"""Whose lists are due and what they become: the publisher with a real version, no broker, no Redis, no clock."""

import numpy as np
import pytest

from model.actions import ACTIONS
from model.recommender import RankedEvent
from streaming.records import Title
from streaming.state.publisher import Publisher, PublishSettings
from streaming.state.user_cache import UserCache, insert
from streaming.stores.redis_lists import Placed, Prediction, Withdrawn
from tests.support.publish import NOW, activity, again, by_user, do_all, recommender, world
from tests.support.publisher import DISLIKE, PLAY, ROOMY, more, new_title, ready, unseen


def test_before_the_first_version_nothing_is_ranked() -> None:
    publisher = Publisher(ROOMY)
    publisher.launch(world().titles)
    for offset, one in enumerate(world().activities):
        publisher.act(one, offset)
    assert publisher.work(NOW) == []
    assert publisher.wait(NOW) is None


def test_with_a_version_everybody_gets_lists_the_last_to_act_first() -> None:
    predictions = [item for item in do_all(ready()) if isinstance(item, Prediction)]
    last_first = list(dict.fromkeys(one.user for one in reversed(world().activities)))
    assert [one.user for one in predictions] == [None, *last_first]
    for one in predictions:
        assert set(one.lists) == {0, 2}
        assert all(len(set(titles)) == len(titles) for titles in one.lists.values())
        if one.user is not None:
            newest = world().newest()[one.user]
            assert one.revision == (newest.new[-1].offset, 0, len(world().titles) - 1)
            assert (one.events, one.event_ms) == (newest.count, newest.new[-1].appended)


def test_what_a_viewer_has_seen_is_left_out_unless_people_come_back() -> None:
    user = world().activities[-1].user
    assert set(by_user(do_all(ready()))[user].lists[0]) <= set(unseen(user))
    repeats = by_user(do_all(ready(PublishSettings(size=60, budget=1e6, filter_seen=False))))
    assert set(repeats[user].lists[0]) == {title.title for title in world().titles}


def test_a_title_that_was_only_shown_or_disliked_is_not_seen() -> None:
    viewers = UserCache()
    held = [("a", 1, PLAY), ("b", 2, DISLIKE), ("c", 3, ACTIONS["impression"].code)]
    viewers.act(activity("u", held, 0, 3))
    known = viewers.get("u")
    assert known is not None
    assert (list(known.seen), known.events, known.targets) == (["a"], 3, 1)


def test_all_that_a_viewer_did_is_one_recompute_and_each_event_is_accounted_for() -> None:
    publisher = ready()
    do_all(publisher)
    user = world().activities[-1].user
    a, b, c = unseen(user)[:3]
    publisher.act(more(user, a, offset=1000), 7)
    publisher.act(more(user, a, b, c, offset=1000), 8)
    assert publisher.pending() == 7
    (item,) = publisher.work(NOW)
    assert isinstance(item, Prediction)
    assert (item.user, item.cause, item.revision[0], len(item.fresh)) == (user, "event", 1002, 4)
    assert not {a, b, c} & set(item.lists[0])
    assert publisher.pending() is None
    assert publisher.wait(NOW) is None


def test_a_slice_is_bounded_and_those_who_act_go_before_those_who_are_refreshed() -> None:
    publisher = ready(PublishSettings(size=10, budget=1e6, chunk=3, small=2))
    users = list(world().newest())[:5]
    for offset, user in enumerate(users):
        publisher.act(more(user, unseen(user)[0]), offset)
    slices = [[item for item in publisher.work(NOW) if isinstance(item, Prediction)] for _ in range(2)]
    assert [[item.user for item in part if item.cause == "event"] for part in slices] == [users[:3], users[3:]]
    assert [sum(item.cause == "refresh" for item in part) for part in slices] == [1, 2]  # two wait; nobody does


def test_refreshing_keeps_to_its_budget_of_viewers_a_second() -> None:
    publisher = ready(PublishSettings(size=10, budget=4, small=2))
    first = do_all(publisher)
    assert len(by_user(first)) == 4  # a second's worth
    assert publisher.wait(NOW) == pytest.approx(0.5)
    assert len(by_user(do_all(publisher, NOW + 500))) == 2
    assert len(by_user(do_all(publisher, NOW + 60_000))) == 4


def test_an_older_activity_that_comes_again_changes_nothing() -> None:
    publisher = ready()
    do_all(publisher)
    for offset, one in enumerate(world().activities):
        publisher.act(one, offset)
    assert publisher.wait(NOW) is None


def test_a_launch_enters_the_lists_of_those_it_suits_and_nobody_else_is_written() -> None:
    publisher = ready(PublishSettings(size=10, budget=1e6, asked=4))
    before = by_user(do_all(publisher))
    title = new_title()
    publisher.launch([title])
    items = do_all(publisher)
    written = by_user(items)
    nearest = publisher.viewers.nearest({0: publisher._encoders[0](_vector(title))}, 4)
    assert 0 < len(written) < len(before)
    assert set(written) <= {None, *nearest}
    for user, one in written.items():
        assert (one.cause, one.entered) == ("launch", ((title.title, title.appended),))
        assert one.places(title.title)
        assert one.revision == (*before[user].revision[:2], title.offset)
        for horizon, titles in one.lists.items():
            rest = [name for name in titles if name != title.title]
            assert rest == [name for name in before[user].lists[horizon] if name in rest]  # all others in their order
            assert len(rest) >= len(before[user].lists[horizon]) - 1
    assert items[-1] == Placed(title.title, len(written))


def _vector(title: Title) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.frombuffer(title.semantic, "<f4")


def test_the_viewers_a_space_title_is_tried_on_first_are_those_who_watch_space() -> None:
    publisher = ready()
    do_all(publisher)
    genres = {title.title: title.genres for title in world().titles}
    share = {
        user: np.mean(["Space" in genres[title] for title in one.titles]) for user, one in world().newest().items()
    }
    nearest = publisher.viewers.nearest({0: publisher._encoders[0](_vector(new_title()))}, len(share))
    assert np.mean([share[user] for user in nearest[:4]]) > np.mean([share[user] for user in nearest[-4:]])


def test_a_title_without_text_is_tried_on_those_who_acted_last() -> None:
    publisher = ready(PublishSettings(size=60, budget=1e6, asked=3))
    do_all(publisher)
    publisher.launch([new_title("", "")])
    last = list(dict.fromkeys(one.user for one in reversed(world().activities)))[:3]
    assert set(publisher.entering) == {None, *last}


def test_a_viewer_whose_list_an_older_version_made_is_recomputed_for_a_launch() -> None:
    publisher = ready(PublishSettings(size=100, budget=1e6, small=1))
    publisher.work(NOW)  # one viewer: the default
    publisher.serve(1, recommender(), [])
    title = new_title()
    publisher.launch([title])
    first = publisher.work(NOW)[0]
    assert isinstance(first, Prediction)
    assert (first.user, first.version, first.cause) == (None, 1, "launch")
    assert first.entered


def test_lists_are_kept_in_memory_only_while_their_version_is_served() -> None:
    publisher = ready()
    do_all(publisher)
    assert all(known.ranked for known in (publisher.fallback, *publisher.viewers.known.values()))
    publisher.serve(1, recommender(), [])
    assert not any(known.ranked for known in (publisher.fallback, *publisher.viewers.known.values()))


def test_a_withdrawn_title_is_in_no_new_list_and_readers_are_told_until_it_comes_back() -> None:
    publisher = ready()
    do_all(publisher)
    gone = again(world().titles[3], 600, withdrawn=True)
    publisher.launch([gone])
    assert do_all(publisher) == [Withdrawn(frozenset({gone.title}))]
    publisher.serve(1, recommender(), [])
    lists = by_user(do_all(publisher))
    assert not any(gone.title in titles for one in lists.values() for titles in one.lists.values())
    publisher.launch([again(gone, 700, withdrawn=False)])
    items = do_all(publisher)
    assert items[0] == Withdrawn(frozenset())
    assert any(gone.title in one.lists[0] for one in by_user(items).values())


def test_a_version_is_told_the_titles_that_its_log_did_not_hold() -> None:
    publisher = ready(titles=world().titles[:50])
    known, late, unlogged = world().titles[0], new_title("Late", offset=501), new_title("Unlogged", offset=502)
    publisher.launch([known, late, unlogged])
    publisher.titles.log(known, 10)
    publisher.titles.log(late, 900)
    assert {title.title for title in publisher.titles.ahead(900)} == {"late", "unlogged"}
    assert {title.title for title in publisher.titles.ahead(901)} == {"unlogged"}
    version = recommender()
    publisher.serve(1, version, publisher.titles.ahead(900))
    assert version.known("late")
    assert version.known("unlogged")


def test_a_version_lacks_no_title_and_serves_none_that_is_withdrawn() -> None:
    strange = again(world().titles[5], 600, withdrawn=True)
    publisher = ready(titles=[*world().titles[:5], strange, new_title()])
    assert publisher.recommender is not None
    assert publisher.recommender.known("space ii")
    assert not publisher.recommender.known(strange.title)


def test_the_longest_inactive_leave_the_cache_and_what_was_due_for_them_is_dropped() -> None:
    publisher = ready()
    do_all(publisher)
    publisher.viewers.most = len(publisher.viewers)
    longest = next(iter(publisher.viewers.known))
    publisher.launch([new_title()])
    publisher.act(activity("newcomer", [("title-1", NOW, PLAY)], 5000), 1)
    assert publisher.viewers.get(longest) is None
    written = by_user(do_all(publisher))
    assert "newcomer" in written
    assert longest not in written
    assert not publisher.entering


def test_old_data_is_asked_about_in_its_own_time() -> None:
    publisher = ready()
    do_all(publisher)
    user_update = world().activities[-1]
    known = publisher.viewers.get(user_update.user)
    assert known is not None
    assert known.ranked is not None
    away = abs(known.ranked.moment - user_update.times[-1])
    assert away < 30 * 86_400_000 < NOW - user_update.times[-1]


def test_a_restart_rebuilds_the_same_lists() -> None:
    publisher = ready()
    do_all(publisher)
    a, b = unseen(world().activities[-1].user)[:2]
    extra = more(world().activities[-1].user, a, b)
    publisher.act(extra, 300)
    do_all(publisher)
    publisher.serve(1, recommender(), [])
    lived = by_user(do_all(publisher))
    restarted = ready()
    restarted.remember(extra)
    restarted.serve(1, recommender(), [])
    assert by_user(do_all(restarted)) == lived


def test_titles_are_inserted_where_their_scores_put_them() -> None:
    scores = {0: np.array([3, 2, 1], np.float32), 5: np.array([3, 2, 1], np.float32)}
    ranked = RankedEvent(
        {0: ["a", "b", "c"], 5: ["a", "b", "c"]}, scores, np.zeros(1, np.float32), np.zeros(2, np.float32), 0
    )
    after = insert(ranked, ["x", "b"], np.array([[2.5, 0.5], [0, 9]], np.float32), 3)
    assert after.titles == {0: ["a", "x", "c"], 5: ["b", "a", "c"]}
    assert after.scores[0].tolist() == [3, 2.5, 1]
    assert insert(ranked, [], np.zeros((2, 0), np.float32), 3).titles == ranked.titles
