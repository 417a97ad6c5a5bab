"""The audience: what each user has seen, in order and bounded; who acted; who is forgotten, and what with them."""

import numpy as np
import pytest
from learner_tools import differences

from model.audience import ACTORS, NOBODY, RECENT, Audience


def recent(audience: Audience, user: str) -> list[int]:
    """The user's recent titles, oldest first, as the signals walk the ring."""
    slot = audience.slot(user)
    many, size = int(audience.many_U[slot]), RECENT
    start = max(many - size, 0)
    return [int(audience.recent_UR[slot, p % size]) for p in range(start, many)]


def actors(audience: Audience, row: int) -> set[int]:
    return set(audience.actors_VA[row].tolist()) - {NOBODY}


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


def test_rings_hold_the_newest_titles_of_a_user_and_users_of_a_title() -> None:
    audience = Audience()
    for n in range(RECENT + 20):
        audience.add("u", n)
    assert recent(audience, "u") == list(range(20, RECENT + 20))
    for n in range(ACTORS + 10):
        audience.add(f"v{n}", 1000)
    assert actors(audience, 1000) == {audience.slot(f"v{n}") for n in range(10, ACTORS + 10)}


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
    audience.add("a", 1)
    audience.add("b", 2)
    slot = audience.slot("a")
    audience.forget_user("a")
    assert (audience.slot("a"), audience.count("a"), audience.seen_by("a").tolist()) == (NOBODY, 0, [])
    assert not audience.many_U[slot]
    assert (audience.recent_UR[slot] == NOBODY).all()
    assert audience.seen_by("b").tolist() == [2]
    for user in ("c", "d"):  # places are used again: the bound holds
        audience.add(user, 3)
    assert len(audience.seen) == 2


def test_a_title_that_takes_over_a_row_is_seen_by_nobody() -> None:
    audience = Audience(most_seen=4)
    for row in (5, 3, 4, 3, 6):
        audience.add("u", row)
    audience.forget_titles(np.array([3, 5]))
    assert 3 not in audience.seen_by("u").tolist()
    assert [row for row in audience.seen_by("u").tolist() if row >= 0] == [4, 6]
    assert [row for row in recent(audience, "u") if row >= 0] == [4, 6]
    assert actors(audience, 3) == set()
    assert actors(audience, 4) == {audience.slot("u")}
    audience.add("v", 3)
    assert actors(audience, 3) == {audience.slot("v")}


def test_room_for_users_is_made_before_they_come() -> None:
    audience = Audience(users=4)
    audience.add("u", 1)
    audience.make_room(20)
    many_U, recent_UR = audience.many_U, audience.recent_UR
    for n in range(20):
        audience.add(f"v{n}", 2)
    assert audience.many_U is many_U
    assert audience.recent_UR is recent_UR
    assert audience.seen_by("u").tolist() == [1]


def test_a_restart_changes_nothing_that_follows() -> None:
    random, one = np.random.default_rng(1), Audience(users=4, titles=40, most_users=9, most_seen=12)

    def act(audiences: list[Audience], many: int) -> None:
        for _ in range(many):
            user, row = f"u{random.integers(14)}", int(random.integers(40))
            for audience in audiences:
                audience.add(user, row)

    act([one], 200)
    one.forget_user("u3")
    one.forget_titles(np.array([7, 8]))
    state = one.state_dict(40)
    other = Audience(users=4, titles=40, most_users=9, most_seen=12)
    other.load_state_dict(state)
    assert differences(other.state_dict(40), state) == []
    act([one, other], 150)
    assert differences(other.state_dict(40), one.state_dict(40)) == []
    assert len(one.seen) == 9


@pytest.mark.parametrize("many", [3, 40, ACTORS + 5])
@pytest.mark.parametrize("evicted", [True, False])
def test_who_leaves_is_in_no_ring_and_the_others_stay_in_order(many: int, evicted: bool) -> None:
    audience = Audience(most_users=many + 1, most_seen=5)
    for n in range(12):  # more than are held as seen, so that they are looked for everywhere
        audience.add("gone", n)
        audience.add("gone", 0)
    for n in range(many):
        audience.add(f"u{n}", 0)
    slot = audience.slot("gone")
    if evicted:
        audience.add("next", 99)
        assert audience.slot("next") == slot
        assert actors(audience, 99) == {slot}
    else:
        audience.forget_user("gone")
        assert slot not in audience.actors_VA
    for row in range(12):
        kept = [f"u{n}" for n in range(many)][-ACTORS:] if row == 0 else []
        in_order = np.roll(audience.actors_VA[row], -int(audience.acted_V[row])).tolist()
        assert [slot for slot in in_order if slot != NOBODY] == [audience.slot(user) for user in kept]
        assert NOBODY not in audience.actors_VA[row][: len(kept)]
    audience.add("u1", 0)
    assert audience.slot("u1") in actors(audience, 0)


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
