"""The audience: what each user has seen, in order and bounded; who acted; who is forgotten, and what with them."""

from collections import Counter

import numpy as np
import pytest

from model.state.interactions import TAKERS, newest_of
from model.state.user_store import NOBODY, Audience
from tests.support.learner import differences


def recent(audience: Audience, user: str, most: int = 200) -> list[int]:
    """The user's newest titles, newest first, as the signals read the trail."""
    rows = np.zeros(most, np.int32)
    return [int(row) for row in rows[: newest_of(audience.trail, audience.slot(user), rows)]]


def actors(audience: Audience, row: int) -> list[int]:
    """The slots of who took a title, newest first."""
    trail, taken = audience.trail, int(audience.trail.taken_V[row])
    found = [int(trail.taker_VA[row, at % TAKERS]) for at in range(taken - 1, max(taken - TAKERS, 0) - 1, -1)]
    return [slot for slot in found if slot != NOBODY]


def test_a_stranger_has_seen_nothing_and_asking_changes_nothing() -> None:
    audience = Audience()
    before = audience.state_dict(5)
    assert (audience.slot("u"), audience.count("u"), audience.seen_by("u").tolist()) == (NOBODY, 0, [])
    audience.forget_user("u")
    assert differences(audience.state_dict(5), before) == []


@pytest.mark.parametrize("many", [1, 8, 9, 30, 31, 32, 45, 90])
def test_seen_titles_come_oldest_first_and_the_oldest_go_beyond_the_bound(many: int) -> None:
    audience = Audience(most_seen=31)
    for n in range(many):
        audience.add("u", n)
        audience.add("other", 99 - n)
    assert audience.seen_by("u").tolist() == list(range(many))[-31:]
    assert audience.seen_by("other").tolist() == [99 - n for n in range(many)][-31:]
    assert audience.count("u") == many


def test_a_bound_smaller_than_the_first_room_holds_too() -> None:
    audience = Audience(most_seen=3)
    for n in range(7):
        audience.add("u", n)
        assert audience.seen_by("u").tolist() == list(range(n + 1))[-3:]


def test_the_trail_holds_the_titles_of_a_user_and_the_newest_users_of_a_title() -> None:
    audience = Audience()
    for n in range(20):
        audience.add("u", n)
    for n in range(TAKERS + 9):
        audience.add(f"v{n}", 1000)
    assert recent(audience, "u") == list(range(19, -1, -1))
    assert recent(audience, "u", 3) == [19, 18, 17]
    assert actors(audience, 1000) == [audience.slot(f"v{n}") for n in range(TAKERS + 8, 8, -1)]
    assert actors(audience, 4) == [audience.slot("u")]


def test_the_user_who_acted_longest_ago_gives_up_the_place() -> None:
    audience = Audience(most_users=3)
    for n, user in enumerate("abc"):
        audience.add(user, n)
    audience.add("a", 7)
    slot_b = audience.slot("b")
    audience.add("d", 5)
    assert [audience.count(user) for user in "abcd"] == [2, 0, 1, 1]
    assert audience.slot("d") == slot_b
    assert audience.seen_by("d").tolist() == [5]
    assert audience.seen_by("b").tolist() == []
    assert recent(audience, "d") == [5]
    audience.add("b", 9)  # comes back as a stranger, in the place of c
    assert (audience.count("b"), audience.count("c"), len(audience.slots)) == (1, 0, 3)


def test_a_user_who_is_forgotten_leaves_nothing_and_others_keep_theirs() -> None:
    audience = Audience(most_users=2)
    for _ in range(20):  # a ring that grew twice
        audience.add("a", 1)
    audience.add("b", 2)
    slot = audience.slot("a")
    audience.forget_user("a")
    assert (audience.slot("a"), audience.count("a"), audience.seen_by("a").tolist()) == (NOBODY, 0, [])
    assert not audience.trail.many_U[slot]
    assert slot not in audience.trail.taker_VA
    assert 1 not in audience.trail.row_E
    assert audience.seen_by("b").tolist() == [2]
    for user in ("c", "d"):  # places are used again: the bound holds
        audience.add(user, 3)
    assert audience.made == 2


def test_a_title_that_takes_over_a_row_is_seen_by_nobody() -> None:
    audience = Audience(most_seen=4)
    for row in (5, 3, 4, 3, 6):
        audience.add("u", row)
    audience.forget_titles(np.array([3, 5]))
    assert 3 not in audience.seen_by("u").tolist()
    assert [row for row in audience.seen_by("u").tolist() if row >= 0] == [4, 6]
    assert recent(audience, "u") == [6, 4]
    assert (actors(audience, 3), actors(audience, 4)) == ([], [audience.slot("u")])
    audience.add("v", 3)
    assert actors(audience, 3) == [audience.slot("v")]


@pytest.mark.parametrize("most_users", [9, 200_000])
def test_room_for_users_and_events_is_made_before_they_come(most_users: int) -> None:
    audience, coming = Audience(users=4, most_users=most_users), [f"v{n % 20}" for n in range(5_000)]
    for _ in range(9):
        audience.add("u", 1)
    audience.make_room(Counter(coming))
    trail = audience.trail
    for user in coming:
        audience.add(user, 2)
    assert all(now is before for now, before in zip(audience.trail, trail, strict=True))
    assert audience.seen_by("v19").tolist() == [2] * (250 if most_users > 20 else 1)
    assert len(actors(audience, 2)) <= TAKERS


def test_room_follows_what_is_held_of_a_user_not_what_was_ever_done() -> None:
    audience = Audience(most_seen=8)
    for n in range(50_000):
        audience.add("bot", n % 9)
    before = len(audience.trail.row_E)
    audience.make_room({"bot": 1})
    assert len(audience.trail.row_E) == before


def test_a_restart_changes_nothing_that_follows() -> None:
    bounds = {"users": 4, "titles": 40, "most_users": 9, "most_seen": 12}
    random, one = np.random.default_rng(1), Audience(**bounds)

    def act(audiences: list[Audience], many: int) -> None:
        for _ in range(many):
            user, row = f"u{random.integers(14)}", int(random.integers(40))
            for audience in audiences:
                audience.add(user, row)

    act([one], 200)
    one.forget_user("u3")
    one.forget_titles(np.array([7, 8]))
    state = one.state_dict(40)
    other = Audience(**bounds)
    other.load_state_dict(state)
    assert differences(other.state_dict(40), state) == []
    act([one, other], 150)
    assert differences(other.state_dict(40), one.state_dict(40)) == []
    assert one.made == 9
    for row in range(40):
        assert actors(one, row) == actors(other, row)
    for user in one.slots:
        assert recent(one, user) == recent(other, user)


@pytest.mark.parametrize("many", [3, 40, 90])
@pytest.mark.parametrize("evicted", [True, False])
def test_who_leaves_is_nowhere_on_the_trail_and_the_others_stay_in_order(many: int, evicted: bool) -> None:
    audience = Audience(most_users=many + 1, most_seen=5)
    for n in range(many):
        if n < 12:  # more than are held as seen
            audience.add("gone", n)
        audience.add(f"u{n}", 0)
        audience.add("gone", 0)
    for n in range(many):  # so that the one who leaves has acted longest ago
        audience.add(f"u{n}", 13)
    slot = audience.slot("gone")
    if evicted:
        audience.add("next", 99)
        assert audience.slot("next") == slot
        assert (actors(audience, 99), recent(audience, "next")) == ([slot], [99])
    else:
        audience.forget_user("gone")
        assert slot not in audience.trail.taker_VA
    held = min(many, TAKERS // 2)  # every other place is of who left
    assert actors(audience, 0) == [audience.slot(f"u{n}") for n in range(many - 1, many - held - 1, -1)]
    assert [row for row in range(1, 12) if actors(audience, row)] == []
    assert recent(audience, "u1") == [13, 0]
    audience.add("u1", 0)
    assert actors(audience, 0)[0] == audience.slot("u1")


def test_a_forgotten_users_place_is_the_next_to_be_taken_also_after_a_restart() -> None:
    audience = Audience(most_users=9)
    for user in "abcd":
        audience.add(user, 1)
    slots = {user: audience.slot(user) for user in "abcd"}
    for user in "cb":
        audience.forget_user(user)
    other = Audience(most_users=9)
    other.load_state_dict(audience.state_dict(5))
    for one in (audience, other):
        for user in "xyz":
            one.add(user, 2)
        assert [one.slot(user) for user in "xyz"] == [slots["b"], slots["c"], 4]
    assert differences(other.state_dict(5), audience.state_dict(5)) == []
