"""Tests of the user store: seen titles, reserved capacity, eviction, erasure and restarts."""

from collections import Counter

import numpy as np
import pytest

from model.state.interactions import USERS_PER_TITLE, recent_titles_of
from model.state.segmented_cache import PROVEN_EVENTS
from model.state.user_store import UNKNOWN_USER, UserStore
from tests.support.learner import state_differences


def recent(user_store: UserStore, user: str, limit: int = 200) -> list[int]:
    """Return the user's latest titles, newest first, as the signals read them."""
    rows = np.zeros(limit, np.int32)
    return [int(row) for row in rows[: recent_titles_of(user_store.interactions, user_store.user_index(user), rows)]]


def users_of(user_store: UserStore, row: int) -> list[int]:
    """Return the indices of a title's users, newest first."""
    interactions, count = user_store.interactions, int(user_store.interactions.title_count_V[row])
    found = [
        int(interactions.title_users_VI[row, i % USERS_PER_TITLE])
        for i in range(count - 1, max(count - USERS_PER_TITLE, 0) - 1, -1)
    ]
    return [user_index for user_index in found if user_index != UNKNOWN_USER]


def test_lookup_of_unknown_user_adds_nothing() -> None:
    user_store = UserStore()
    before = user_store.state_dict(5)
    assert (user_store.user_index("u"), user_store.event_count("u")) == (UNKNOWN_USER, 0)
    assert user_store.seen_by("u").tolist() == []
    user_store.erase_user("u")
    assert state_differences(user_store.state_dict(5), before) == []


@pytest.mark.parametrize("count", [1, 8, 9, 30, 31, 32, 45, 90])
def test_seen_titles_are_bounded_and_oldest_first(count: int) -> None:
    user_store = UserStore(max_seen=31)
    for n in range(count):
        user_store.add("u", n)
        user_store.add("other", 99 - n)
    assert user_store.seen_by("u").tolist() == list(range(count))[-31:]
    assert user_store.seen_by("other").tolist() == [99 - n for n in range(count)][-31:]
    assert user_store.event_count("u") == count


def test_max_seen_may_be_smaller_than_initial_capacity() -> None:
    user_store = UserStore(max_seen=3)
    for n in range(7):
        user_store.add("u", n)
        assert user_store.seen_by("u").tolist() == list(range(n + 1))[-3:]


def test_index_holds_titles_of_user_and_recent_users_of_title() -> None:
    user_store = UserStore()
    for n in range(20):
        user_store.add("u", n)
    for n in range(USERS_PER_TITLE + 9):
        user_store.add(f"v{n}", 1000)
    assert recent(user_store, "u") == list(range(19, -1, -1))
    assert recent(user_store, "u", 3) == [19, 18, 17]
    assert users_of(user_store, 1000) == [user_store.user_index(f"v{n}") for n in range(USERS_PER_TITLE + 8, 8, -1)]
    assert users_of(user_store, 4) == [user_store.user_index("u")]


def test_least_recently_active_user_is_evicted() -> None:
    user_store = UserStore(max_users=3)
    for n, user in enumerate("abc"):
        user_store.add(user, n)
    user_store.add("a", 7)
    index_b = user_store.user_index("b")
    user_store.add("d", 5)
    assert [user_store.event_count(user) for user in "abcd"] == [2, 0, 1, 1]
    assert user_store.user_index("d") == index_b
    assert user_store.seen_by("d").tolist() == [5]
    assert user_store.seen_by("b").tolist() == []
    assert recent(user_store, "d") == [5]
    user_store.add("b", 9)  # returns as a new user, and c is evicted
    assert (user_store.event_count("b"), user_store.event_count("c"), len(user_store.user_indices)) == (1, 0, 3)


def test_users_of_one_event_evict_no_proven_user() -> None:
    user_store = UserStore(max_users=20)
    for _ in range(PROVEN_EVENTS):
        for n in range(10):
            user_store.add(f"known{n}", n)
    restored = UserStore(max_users=20)
    restored.load_state_dict(user_store.state_dict(50))
    for one in (user_store, restored):
        for n in range(500):
            one.add(f"visitor{n}", 30)
        assert [one.event_count(f"known{n}") for n in range(10)] == [PROVEN_EVENTS] * 10
        assert [n for n in range(500) if one.event_count(f"visitor{n}")] == list(range(490, 500))


def test_erased_user_leaves_no_data_and_others_keep_theirs() -> None:
    user_store = UserStore(max_users=2)
    for _ in range(20):  # the ring buffer grows twice
        user_store.add("a", 1)
    user_store.add("b", 2)
    user_index = user_store.user_index("a")
    user_store.erase_user("a")
    assert (user_store.user_index("a"), user_store.event_count("a")) == (UNKNOWN_USER, 0)
    assert user_store.seen_by("a").tolist() == []
    assert not user_store.interactions.user_count_U[user_index]
    assert user_index not in user_store.interactions.title_users_VI
    assert 1 not in user_store.interactions.row_X
    assert user_store.seen_by("b").tolist() == [2]
    for user in ("c", "d"):  # the index is reused, so that the maximum holds
        user_store.add(user, 3)
    assert user_store.allocated == 2


def test_reused_title_row_is_not_seen() -> None:
    user_store = UserStore(max_seen=4)
    for row in (5, 3, 4, 3, 6):
        user_store.add("u", row)
    user_store.evict_titles(np.array([3, 5]))
    assert 3 not in user_store.seen_by("u").tolist()
    assert [row for row in user_store.seen_by("u").tolist() if row >= 0] == [4, 6]
    assert recent(user_store, "u") == [6, 4]
    assert (users_of(user_store, 3), users_of(user_store, 4)) == ([], [user_store.user_index("u")])
    user_store.add("v", 3)
    assert users_of(user_store, 3) == [user_store.user_index("v")]


@pytest.mark.parametrize("max_users", [9, 200_000])
def test_reserve_allocates_arrays_for_later_events(max_users: int) -> None:
    user_store, users = UserStore(users=4, max_users=max_users), [f"v{n % 20}" for n in range(5_000)]
    for _ in range(9):
        user_store.add("u", 1)
    user_store.reserve(Counter(users))
    interactions = user_store.interactions
    for user in users:
        user_store.add(user, 2)
    assert all(now is before for now, before in zip(user_store.interactions, interactions, strict=True))
    assert user_store.seen_by("v19").tolist() == [2] * (250 if max_users > 20 else 1)
    assert len(users_of(user_store, 2)) <= USERS_PER_TITLE


def test_reserve_counts_held_events_only() -> None:
    user_store = UserStore(max_seen=8)
    for n in range(50_000):
        user_store.add("bot", n % 9)
    before = len(user_store.interactions.row_X)
    user_store.reserve({"bot": 1})
    assert len(user_store.interactions.row_X) == before


def test_restart_changes_nothing_that_follows() -> None:
    bounds = {"users": 4, "titles": 40, "max_users": 9, "max_seen": 12}
    random, original = np.random.default_rng(1), UserStore(**bounds)

    def add_events(user_stores: list[UserStore], count: int) -> None:
        for _ in range(count):
            user, row = f"u{random.integers(14)}", int(random.integers(40))
            for user_store in user_stores:
                user_store.add(user, row)

    add_events([original], 200)
    original.erase_user("u3")
    original.evict_titles(np.array([7, 8]))
    state = original.state_dict(40)
    restored = UserStore(**bounds)
    restored.load_state_dict(state)
    assert state_differences(restored.state_dict(40), state) == []
    add_events([original, restored], 150)
    assert state_differences(restored.state_dict(40), original.state_dict(40)) == []
    assert original.allocated == 9
    for row in range(40):
        assert users_of(original, row) == users_of(restored, row)
    for user in original.user_indices:
        assert recent(original, user) == recent(restored, user)


@pytest.mark.parametrize("count", [3, 40, 90])
@pytest.mark.parametrize("evicted", [True, False])
def test_removed_user_leaves_index_and_others_keep_their_order(count: int, evicted: bool) -> None:
    user_store = UserStore(max_users=count + 1, max_seen=5)
    for n in range(count):
        if n < 12:  # more than the user store holds
            user_store.add("removed", n)
        user_store.add(f"u{n}", 0)
        user_store.add("removed", 0)
    for n in range((PROVEN_EVENTS - 1) * count):  # then "removed" is the least recently active user
        user_store.add(f"u{n % count}", 13)
    user_index = user_store.user_index("removed")
    if evicted:
        user_store.add("next", 99)
        assert user_store.user_index("next") == user_index
        assert (users_of(user_store, 99), recent(user_store, "next")) == ([user_index], [99])
    else:
        user_store.erase_user("removed")
        assert user_index not in user_store.interactions.title_users_VI
    held = min(count, USERS_PER_TITLE // 2)  # the removed user had every second entry
    assert users_of(user_store, 0) == [user_store.user_index(f"u{n}") for n in range(count - 1, count - held - 1, -1)]
    assert [row for row in range(1, 12) if users_of(user_store, row)] == []
    assert recent(user_store, "u1") == [13] * (PROVEN_EVENTS - 1) + [0]
    user_store.add("u1", 0)
    assert users_of(user_store, 0)[0] == user_store.user_index("u1")


def test_index_of_erased_user_is_reused_after_restart() -> None:
    user_store = UserStore(max_users=9)
    for user in "abcd":
        user_store.add(user, 1)
    user_indices = {user: user_store.user_index(user) for user in "abcd"}
    for user in "cb":
        user_store.erase_user(user)
    restored = UserStore(max_users=9)
    restored.load_state_dict(user_store.state_dict(5))
    for one in (user_store, restored):
        for user in "xyz":
            one.add(user, 2)
        assert [one.user_index(user) for user in "xyz"] == [user_indices["b"], user_indices["c"], 4]
    assert state_differences(restored.state_dict(5), user_store.state_dict(5)) == []
