"""The audience: what each user has seen, in order and bounded; who acted; who is forgotten, and what with them."""

from collections import Counter

import numpy as np
import pytest

from model.state.interactions import USERS_PER_TITLE, recent_titles_of
from model.state.user_store import NOBODY, UserStore
from tests.support.learner import differences


def recent(user_store: UserStore, user: str, most: int = 200) -> list[int]:
    """The user's newest titles, newest first, as the signals read the trail."""
    rows = np.zeros(most, np.int32)
    return [int(row) for row in rows[: recent_titles_of(user_store.interactions, user_store.user_index(user), rows)]]


def actors(user_store: UserStore, row: int) -> list[int]:
    """The slots of who took a title, newest first."""
    interactions, taken = user_store.interactions, int(user_store.interactions.title_count_V[row])
    found = [
        int(interactions.title_users_VA[row, at % USERS_PER_TITLE])
        for at in range(taken - 1, max(taken - USERS_PER_TITLE, 0) - 1, -1)
    ]
    return [user_index for user_index in found if user_index != NOBODY]


def test_a_stranger_has_seen_nothing_and_asking_changes_nothing() -> None:
    user_store = UserStore()
    before = user_store.state_dict(5)
    assert (user_store.user_index("u"), user_store.count("u"), user_store.seen_by("u").tolist()) == (NOBODY, 0, [])
    user_store.erase_user("u")
    assert differences(user_store.state_dict(5), before) == []


@pytest.mark.parametrize("many", [1, 8, 9, 30, 31, 32, 45, 90])
def test_seen_titles_come_oldest_first_and_the_oldest_go_beyond_the_bound(many: int) -> None:
    user_store = UserStore(most_seen=31)
    for n in range(many):
        user_store.add("u", n)
        user_store.add("other", 99 - n)
    assert user_store.seen_by("u").tolist() == list(range(many))[-31:]
    assert user_store.seen_by("other").tolist() == [99 - n for n in range(many)][-31:]
    assert user_store.count("u") == many


def test_a_bound_smaller_than_the_first_room_holds_too() -> None:
    user_store = UserStore(most_seen=3)
    for n in range(7):
        user_store.add("u", n)
        assert user_store.seen_by("u").tolist() == list(range(n + 1))[-3:]


def test_the_trail_holds_the_titles_of_a_user_and_the_newest_users_of_a_title() -> None:
    user_store = UserStore()
    for n in range(20):
        user_store.add("u", n)
    for n in range(USERS_PER_TITLE + 9):
        user_store.add(f"v{n}", 1000)
    assert recent(user_store, "u") == list(range(19, -1, -1))
    assert recent(user_store, "u", 3) == [19, 18, 17]
    assert actors(user_store, 1000) == [user_store.user_index(f"v{n}") for n in range(USERS_PER_TITLE + 8, 8, -1)]
    assert actors(user_store, 4) == [user_store.user_index("u")]


def test_the_user_who_acted_longest_ago_gives_up_the_place() -> None:
    user_store = UserStore(most_users=3)
    for n, user in enumerate("abc"):
        user_store.add(user, n)
    user_store.add("a", 7)
    slot_b = user_store.user_index("b")
    user_store.add("d", 5)
    assert [user_store.count(user) for user in "abcd"] == [2, 0, 1, 1]
    assert user_store.user_index("d") == slot_b
    assert user_store.seen_by("d").tolist() == [5]
    assert user_store.seen_by("b").tolist() == []
    assert recent(user_store, "d") == [5]
    user_store.add("b", 9)  # comes back as a stranger, in the place of c
    assert (user_store.count("b"), user_store.count("c"), len(user_store.user_indices)) == (1, 0, 3)


def test_a_user_who_is_forgotten_leaves_nothing_and_others_keep_theirs() -> None:
    user_store = UserStore(most_users=2)
    for _ in range(20):  # a ring that grew twice
        user_store.add("a", 1)
    user_store.add("b", 2)
    user_index = user_store.user_index("a")
    user_store.erase_user("a")
    assert (user_store.user_index("a"), user_store.count("a"), user_store.seen_by("a").tolist()) == (NOBODY, 0, [])
    assert not user_store.interactions.user_count_U[user_index]
    assert user_index not in user_store.interactions.title_users_VA
    assert 1 not in user_store.interactions.row_E
    assert user_store.seen_by("b").tolist() == [2]
    for user in ("c", "d"):  # places are used again: the bound holds
        user_store.add(user, 3)
    assert user_store.made == 2


def test_a_title_that_takes_over_a_row_is_seen_by_nobody() -> None:
    user_store = UserStore(most_seen=4)
    for row in (5, 3, 4, 3, 6):
        user_store.add("u", row)
    user_store.evict_titles(np.array([3, 5]))
    assert 3 not in user_store.seen_by("u").tolist()
    assert [row for row in user_store.seen_by("u").tolist() if row >= 0] == [4, 6]
    assert recent(user_store, "u") == [6, 4]
    assert (actors(user_store, 3), actors(user_store, 4)) == ([], [user_store.user_index("u")])
    user_store.add("v", 3)
    assert actors(user_store, 3) == [user_store.user_index("v")]


@pytest.mark.parametrize("most_users", [9, 200_000])
def test_room_for_users_and_events_is_made_before_they_come(most_users: int) -> None:
    user_store, coming = UserStore(users=4, most_users=most_users), [f"v{n % 20}" for n in range(5_000)]
    for _ in range(9):
        user_store.add("u", 1)
    user_store.make_room(Counter(coming))
    interactions = user_store.interactions
    for user in coming:
        user_store.add(user, 2)
    assert all(now is before for now, before in zip(user_store.interactions, interactions, strict=True))
    assert user_store.seen_by("v19").tolist() == [2] * (250 if most_users > 20 else 1)
    assert len(actors(user_store, 2)) <= USERS_PER_TITLE


def test_room_follows_what_is_held_of_a_user_not_what_was_ever_done() -> None:
    user_store = UserStore(most_seen=8)
    for n in range(50_000):
        user_store.add("bot", n % 9)
    before = len(user_store.interactions.row_E)
    user_store.make_room({"bot": 1})
    assert len(user_store.interactions.row_E) == before


def test_a_restart_changes_nothing_that_follows() -> None:
    bounds = {"users": 4, "titles": 40, "most_users": 9, "most_seen": 12}
    random, one = np.random.default_rng(1), UserStore(**bounds)

    def act(audiences: list[UserStore], many: int) -> None:
        for _ in range(many):
            user, row = f"u{random.integers(14)}", int(random.integers(40))
            for user_store in audiences:
                user_store.add(user, row)

    act([one], 200)
    one.erase_user("u3")
    one.evict_titles(np.array([7, 8]))
    state = one.state_dict(40)
    other = UserStore(**bounds)
    other.load_state_dict(state)
    assert differences(other.state_dict(40), state) == []
    act([one, other], 150)
    assert differences(other.state_dict(40), one.state_dict(40)) == []
    assert one.made == 9
    for row in range(40):
        assert actors(one, row) == actors(other, row)
    for user in one.user_indices:
        assert recent(one, user) == recent(other, user)


@pytest.mark.parametrize("many", [3, 40, 90])
@pytest.mark.parametrize("evicted", [True, False])
def test_who_leaves_is_nowhere_on_the_trail_and_the_others_stay_in_order(many: int, evicted: bool) -> None:
    user_store = UserStore(most_users=many + 1, most_seen=5)
    for n in range(many):
        if n < 12:  # more than are held as seen
            user_store.add("gone", n)
        user_store.add(f"u{n}", 0)
        user_store.add("gone", 0)
    for n in range(many):  # so that the one who leaves has acted longest ago
        user_store.add(f"u{n}", 13)
    user_index = user_store.user_index("gone")
    if evicted:
        user_store.add("next", 99)
        assert user_store.user_index("next") == user_index
        assert (actors(user_store, 99), recent(user_store, "next")) == ([user_index], [99])
    else:
        user_store.erase_user("gone")
        assert user_index not in user_store.interactions.title_users_VA
    held = min(many, USERS_PER_TITLE // 2)  # every other place is of who left
    assert actors(user_store, 0) == [user_store.user_index(f"u{n}") for n in range(many - 1, many - held - 1, -1)]
    assert [row for row in range(1, 12) if actors(user_store, row)] == []
    assert recent(user_store, "u1") == [13, 0]
    user_store.add("u1", 0)
    assert actors(user_store, 0)[0] == user_store.user_index("u1")


def test_a_forgotten_users_place_is_the_next_to_be_taken_also_after_a_restart() -> None:
    user_store = UserStore(most_users=9)
    for user in "abcd":
        user_store.add(user, 1)
    user_indices = {user: user_store.user_index(user) for user in "abcd"}
    for user in "cb":
        user_store.erase_user(user)
    other = UserStore(most_users=9)
    other.load_state_dict(user_store.state_dict(5))
    for one in (user_store, other):
        for user in "xyz":
            one.add(user, 2)
        assert [one.user_index(user) for user in "xyz"] == [user_indices["b"], user_indices["c"], 4]
    assert differences(other.state_dict(5), user_store.state_dict(5)) == []
