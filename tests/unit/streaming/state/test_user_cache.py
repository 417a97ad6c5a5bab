"""The cache of users, and the insertion of new titles into their lists."""

from collections.abc import Sequence

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from model.actions import ACTIONS
from model.recommender import RankedLists
from model.state.segmented_cache import PROVEN_EVENTS
from streaming.state.user_cache import UserCache, insert_titles
from tests.support.publish import activity
from tests.support.publisher import DISLIKE, PLAY


def test_only_positive_events_mark_a_title_as_seen() -> None:
    users = UserCache()
    history = [("a", 1, PLAY), ("b", 2, DISLIKE), ("c", 3, ACTIONS["impression"].code)]
    users.update(activity("u", history, 0, 3))
    cached = users.get("u")
    assert cached is not None
    assert (list(cached.seen), cached.events, cached.positives) == (["a"], 3, 1)


def test_first_event_of_a_recreated_topic_replaces_the_history() -> None:
    users, old, new = UserCache(), [("a", 1, PLAY), ("b", 2, PLAY)], [("c", 3, PLAY)]
    assert users.update(structs.replace(activity("u", old, 900, 2), source="topic-1"))
    assert not users.update(structs.replace(activity("u", new, 0), source="topic-1"))
    assert users.update(structs.replace(activity("u", new, 0), source="topic-2"))
    cached = users.get("u")
    assert cached is not None
    assert (cached.titles, cached.events, cached.offset, cached.source) == (["c"], 1, 0, "topic-2")
    assert not users.update(structs.replace(activity("u", new, 0), source="topic-2"))


def test_event_in_another_partition_does_not_freeze_the_list() -> None:
    users = UserCache()
    first, second, third = (
        structs.replace(one, new=[structs.replace(event, partition=partition) for event in one.new])
        for one, partition in (
            (activity("u", [("a", 1, PLAY)], 123), 6),
            (activity("u", [("a", 1, PLAY), ("b", 2, PLAY)], 40), 0),
            (activity("u", [("a", 1, PLAY), ("b", 2, PLAY), ("c", 3, PLAY)], 124), 6),
        )
    )
    assert [users.update(one) for one in (first, second, second, first, third)] == [True, True, False, False, True]


def test_erased_user_is_removed() -> None:
    users = UserCache()
    users.update(activity("u", [("a", 1, PLAY)], 900))
    users.erase("u")
    users.erase("nobody")
    assert users.get("u") is None


def test_least_recently_active_user_is_evicted() -> None:
    users = UserCache(max_users=2)
    for offset, user in enumerate(["a", "b", "a", "c"]):
        users.update(activity(user, [("t", offset, PLAY)] * (offset + 1), offset))
    assert list(users.most_recent_first()) == ["c", "a"]


def test_users_of_one_event_evict_no_proven_user() -> None:
    users = UserCache(max_users=1_000)
    for offset in range(500):
        users.update(
            activity(f"known{offset}", [("t", ts, PLAY) for ts in range(PROVEN_EVENTS)], offset, PROVEN_EVENTS)
        )
    for offset in range(50_000):
        users.update(activity(f"visitor{offset}", [("t", offset, PLAY)], 500 + offset))
    assert [n for n in range(500) if users.get(f"known{n}") is None] == []
    assert (len(users), next(users.most_recent_first())) == (1_000, "known499")


def test_seen_titles_are_bounded_to_the_most_recent() -> None:
    users = UserCache(max_seen=2)
    users.update(activity("u", [(title, ts, PLAY) for ts, title in enumerate("abca")], 0, 4))
    cached = users.get("u")
    assert cached is not None
    assert list(cached.seen) == ["c", "a"]


def test_new_titles_are_inserted_by_their_scores() -> None:
    scores = {0: np.array([3, 2, 1], np.float32), 5: np.array([3, 2, 1], np.float32)}
    ranked = RankedLists(
        {0: ["a", "b", "c"], 5: ["a", "b", "c"]}, scores, np.zeros(1, np.float32), np.zeros(2, np.float32), 0
    )

    def best_three(_titles: Sequence[str], score_C: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.argsort(-score_C, kind="stable")[:3]

    after = insert_titles(ranked, ["x", "b"], np.array([[2.5, 0.5], [0, 9]], np.float32), best_three)
    assert after.titles == {0: ["a", "x", "c"], 5: ["b", "a", "c"]}
    assert after.scores[0].tolist() == [3, 2.5, 1]
    assert insert_titles(ranked, [], np.zeros((2, 0), np.float32), best_three).titles == ranked.titles
