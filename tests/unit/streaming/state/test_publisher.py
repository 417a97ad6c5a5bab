"""The publisher with a real model version, and without Kafka, Redis or a clock: whose lists it computes, and when."""

import numpy as np
import pytest

from model.recommender import Recommender
from model.state.segmented_cache import PROVEN_EVENTS
from streaming.records import Activity, Launch, Title
from streaming.state.publish_settings import PublishSettings
from streaming.state.publisher import Publisher
from streaming.stores.redis_lists import LaunchCompleted, Prediction, WithdrawnTitles
from tests.support.publish import (
    NOW,
    SETTINGS,
    activity,
    later_record,
    predictions_by_user,
    recommender,
    trained_state,
    work_until_idle,
    world,
)
from tests.support.publisher import PLAY, SPACE, UNLIMITED, new_title, next_activity, serving_publisher, unseen_titles


def test_nothing_is_ranked_before_the_first_version() -> None:
    publisher = Publisher(UNLIMITED)
    publisher.on_launches(world().titles)
    for offset, one in enumerate(world().activities):
        publisher.on_activity(one, offset)
    assert publisher.work(NOW) == []
    assert publisher.seconds_until_work(NOW) is None


def test_new_version_refreshes_proven_users_first_and_the_most_recent_of_them() -> None:
    predictions = [item for item in work_until_idle(serving_publisher()) if isinstance(item, Prediction)]
    most_recent_first = list(dict.fromkeys(one.user for one in reversed(world().activities)))
    events = {user: one.count for user, one in world().newest().items()}
    in_order = sorted(most_recent_first, key=lambda user: events[user] < PROVEN_EVENTS)
    assert in_order != most_recent_first
    assert [one.user for one in predictions] == [None, *in_order]
    for one in predictions:
        assert set(one.lists) == {0, 2}
        assert all(len(set(titles)) == len(titles) for titles in one.lists.values())
        if one.user is not None:
            newest = world().newest()[one.user]
            assert one.revision == (newest.new[-1].appended, newest.new[-1].offset, 0, len(world().titles))
            assert (one.events, one.event_ms) == (newest.count, newest.new[-1].appended)


def test_seen_titles_are_filtered_unless_disabled() -> None:
    user = world().activities[-1].user
    assert set(predictions_by_user(work_until_idle(serving_publisher()))[user].lists[0]) <= set(unseen_titles(user))
    repeats = predictions_by_user(
        work_until_idle(serving_publisher(PublishSettings(list_size=60, refresh_budget=1e6, filter_seen=False)))
    )
    assert set(repeats[user].lists[0]) == {title.title for title in world().titles}


def test_all_waiting_events_of_a_user_are_one_recompute() -> None:
    publisher = serving_publisher()
    work_until_idle(publisher)
    user = world().activities[-1].user
    a, b, c = unseen_titles(user)[:3]
    publisher.on_activity(next_activity(user, a, offset=1000), 7)
    publisher.on_activity(next_activity(user, a, b, c, offset=1000), 8)
    assert publisher.pending_offset() == 7
    (item,) = publisher.work(NOW)
    assert isinstance(item, Prediction)
    assert (item.user, item.cause, item.revision[1], len(item.new_events)) == (user, "event", 1002, 4)
    assert not {a, b, c} & set(item.lists[0])
    assert publisher.pending_offset() is None
    assert publisher.seconds_until_work(NOW) is None


def test_batch_of_work_is_bounded_and_events_come_before_refreshes() -> None:
    publisher = serving_publisher(PublishSettings(list_size=10, refresh_budget=1e6, event_batch=3, refresh_batch=2))
    users = list(world().newest())[:5]
    for offset, user in enumerate(users):
        publisher.on_activity(next_activity(user, unseen_titles(user)[0]), offset)
    batches = [[item for item in publisher.work(NOW) if isinstance(item, Prediction)] for _ in range(2)]
    assert [[item.user for item in part if item.cause == "event"] for part in batches] == [users[:3], users[3:]]
    assert [sum(item.cause == "refresh" for item in part) for part in batches] == [1, 2]  # first while two users wait


def test_refresh_keeps_its_budget_of_users_per_second() -> None:
    publisher = serving_publisher(PublishSettings(list_size=10, refresh_budget=4, refresh_batch=2))
    first = work_until_idle(publisher)
    assert len(predictions_by_user(first)) == 4  # the budget of a second
    assert publisher.seconds_until_work(NOW) == pytest.approx(0.5)
    assert len(predictions_by_user(work_until_idle(publisher, NOW + 500))) == 2
    assert len(predictions_by_user(work_until_idle(publisher, NOW + 60_000))) == 4


def test_activity_read_again_changes_nothing() -> None:
    publisher = serving_publisher()
    work_until_idle(publisher)
    for offset, one in enumerate(world().activities):
        publisher.on_activity(one, offset)
    assert publisher.seconds_until_work(NOW) is None


def test_launch_rewrites_only_lists_that_it_enters() -> None:
    publisher = serving_publisher(PublishSettings(list_size=10, refresh_budget=1e6, launch_fanout=4))
    before = predictions_by_user(work_until_idle(publisher))
    title = new_title()
    publisher.on_launches([title])
    items = work_until_idle(publisher)
    written = predictions_by_user(items)
    nearest = publisher.users.nearest({0: publisher._title_encoders[0](_vector(title))}, 4)
    assert 0 < len(written) < len(before)
    assert set(written) <= {None, *nearest}
    for user, one in written.items():
        assert (one.cause, one.entered) == ("launch", ((title.title, title.appended),))
        assert one.positions(title.title)
        assert one.revision == (*before[user].revision[:3], title.stamp)
        for horizon, titles in one.lists.items():
            rest = [name for name in titles if name != title.title]
            assert rest == [name for name in before[user].lists[horizon] if name in rest]  # same order
            assert len(rest) >= len(before[user].lists[horizon]) - 1
    assert items[-1] == LaunchCompleted(title.title, len(written))


def _vector(title: Title) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.frombuffer(title.semantic, "<f4")


@pytest.mark.learned
def test_nearest_users_prefer_the_genre_of_the_title() -> None:
    """Even users watch only Space titles, odd users only Romance titles.

    The lowest score of an even user for a new Space title is 5 to 15 above the highest score of an odd user, depending
    on the seed.
    """
    genres = {"Space": SPACE, "Romance": "A wedding, a love letter, a kiss: the bride dances all summer."}
    launches = [
        Launch(title=f"{genre} {n}", name=genre, genres=[genre], overview=overview)
        for genre, overview in genres.items()
        for n in range(20)
    ]
    titles = [world().title(launch, offset) for offset, launch in enumerate(launches)]
    activities: list[Activity] = []
    histories: dict[int, list[tuple[str, int, int]]] = {user: [] for user in range(12)}
    for n in range(15):
        for user, history in histories.items():
            title = titles[20 * (user % 2) + (7 * n + user) % 20].title  # each user's own order, without repeats
            history.append((title, NOW - 10**9 + 60_000 * len(activities), PLAY))
            activities.append(activity(f"u{user}", history, len(activities)))
    publisher = Publisher(UNLIMITED)
    publisher.titles.update(titles, at_startup=True)
    for one in activities:
        publisher.update_cache(one, 0)
    publisher.serve(0, Recommender.from_state(trained_state(titles, activities), SETTINGS), [])
    work_until_idle(publisher)
    nearest = publisher.users.nearest({0: publisher._title_encoders[0](_vector(new_title()))}, 6)
    assert sorted(nearest) == sorted(f"u{user}" for user in range(0, 12, 2))


def test_launch_without_text_is_tried_on_most_recent_users() -> None:
    publisher = serving_publisher(PublishSettings(list_size=60, refresh_budget=1e6, launch_fanout=3))
    work_until_idle(publisher)
    publisher.on_launches([new_title("", "")])
    last = list(dict.fromkeys(one.user for one in reversed(world().activities)))[:3]
    assert set(publisher.launch_queue) == {None, *last}


def test_launch_recomputes_lists_of_an_older_version() -> None:
    publisher = serving_publisher(PublishSettings(list_size=100, refresh_budget=1e6, refresh_batch=1))
    publisher.work(NOW)  # one user: the default user
    publisher.serve(1, recommender(), [])
    title = new_title()
    publisher.on_launches([title])
    first = publisher.work(NOW)[0]
    assert isinstance(first, Prediction)
    assert (first.user, first.version, first.cause) == (None, 1, "launch")
    assert first.entered


def test_new_version_drops_cached_lists() -> None:
    publisher = serving_publisher()
    work_until_idle(publisher)
    assert all(known.ranked for known in (publisher.default_user, *publisher.users.cached.values()))
    publisher.serve(1, recommender(), [])
    assert not any(known.ranked for known in (publisher.default_user, *publisher.users.cached.values()))


def test_withdrawn_title_is_in_no_new_list_until_relaunched() -> None:
    publisher = serving_publisher()
    work_until_idle(publisher)
    withdrawn = later_record(world().titles[3], 600, withdrawn=True)
    publisher.on_launches([withdrawn])
    assert work_until_idle(publisher) == [WithdrawnTitles(frozenset({withdrawn.title}), withdrawn.stamp)]
    publisher.serve(1, recommender(), [])
    lists = predictions_by_user(work_until_idle(publisher))
    assert not any(withdrawn.title in titles for one in lists.values() for titles in one.lists.values())
    relaunched = later_record(withdrawn, 700, withdrawn=False)
    publisher.on_launches([relaunched])
    items = work_until_idle(publisher)
    assert items[0] == WithdrawnTitles(frozenset(), relaunched.stamp)
    assert any(withdrawn.title in one.lists[0] for one in predictions_by_user(items).values())


def test_version_gets_missing_titles_and_withdrawals_when_served() -> None:
    withdrawn = later_record(world().titles[5], 600, withdrawn=True)
    publisher = serving_publisher(titles=[*world().titles[:5], withdrawn, new_title()])
    assert publisher.recommender is not None
    assert publisher.recommender.is_candidate("space ii")
    assert not publisher.recommender.is_candidate(withdrawn.title)


def test_eviction_drops_the_least_recent_user_and_its_launches() -> None:
    publisher = serving_publisher()
    work_until_idle(publisher)
    publisher.users.max_users = len(publisher.users)
    least_recent = next(iter(publisher.users.cached))
    publisher.on_launches([new_title()])
    publisher.on_activity(activity("newcomer", [("title-1", NOW, PLAY)], 5000), 1)
    assert publisher.users.get(least_recent) is None
    written = predictions_by_user(work_until_idle(publisher))
    assert "newcomer" in written
    assert least_recent not in written
    assert not publisher.launch_queue


def test_old_data_is_ranked_for_stream_time() -> None:
    publisher = serving_publisher()
    work_until_idle(publisher)
    user_update = world().activities[-1]
    known = publisher.users.get(user_update.user)
    assert known is not None
    assert known.ranked is not None
    distance = abs(known.ranked.query_time - user_update.times[-1])
    assert distance < 30 * 86_400_000 < NOW - user_update.times[-1]


def test_user_who_has_just_acted_is_ranked_for_their_own_clock() -> None:
    publisher = serving_publisher()
    work_until_idle(publisher)
    user = min(world().newest().values(), key=lambda one: one.times[-1]).user
    publisher.on_activity(next_activity(user, unseen_titles(user)[0]), 300)
    work_until_idle(publisher)
    cached = publisher.users.get(user)
    assert cached is not None
    assert cached.ranked is not None
    newest = max(one.times[-1] for one in world().activities)
    assert cached.ranked.query_time - cached.times[-1] < 60_000 < newest - cached.times[-1]


def test_restart_computes_the_same_lists() -> None:
    publisher = serving_publisher()
    work_until_idle(publisher)
    a, b = unseen_titles(world().activities[-1].user)[:2]
    extra = next_activity(world().activities[-1].user, a, b)
    publisher.on_activity(extra, 300)
    work_until_idle(publisher)
    publisher.serve(1, recommender(), [])
    lived = predictions_by_user(work_until_idle(publisher))
    restarted = serving_publisher()
    restarted.update_cache(extra, 0)
    restarted.serve(1, recommender(), [])
    assert predictions_by_user(work_until_idle(restarted)) == lived
