"""The trail: both its ends say what a plain list of the events says, also past what was forgotten or written over."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from model.state.interactions import NONE, TAKERS, Trail, newest_of
from model.state.user_store import Audience

USERS, TITLES = 5, 7


@dataclass(eq=False)
class Event:
    """slot and row: NONE once forgotten · person: who, told apart from the slot's next · nth: of theirs."""

    slot: int
    row: int
    person: tuple[int, int]
    nth: int


@dataclass
class Plain:
    """The same by a list of all events ever; who is forgotten begins another life."""

    most_seen: int
    events: list[Event] = field(default_factory=list)
    lives: dict[int, int] = field(default_factory=dict)
    rows: dict[int, list[Event]] = field(default_factory=dict)  # by title, since it was forgotten

    def add(self, slot: int, row: int) -> None:
        person = slot, self.lives.get(slot, 0)
        event = Event(slot, row, person, sum(one.person == person for one in self.events))
        self.events.append(event)
        self.rows.setdefault(row, []).append(event)

    def forget_slot(self, slot: int) -> None:
        for event in self.events:
            if event.person == (slot, self.lives.get(slot, 0)):
                event.slot = NONE
        self.lives[slot] = self.lives.get(slot, 0) + 1

    def forget_row(self, row: int) -> None:
        for event in self.rows.pop(row, ()):
            event.row = NONE

    def held_by(self, slot: int) -> list[Event]:
        """Newest first."""
        person = slot, self.lives.get(slot, 0)
        return [event for event in self.events if event.person == person][: -self.most_seen - 1 : -1]

    def takers(self, row: int) -> list[tuple[int, int]]:
        """(slot, which of their events), newest first; (NONE, ..) of the forgotten are left out."""
        newest = self.rows.get(row, [])[: -TAKERS - 1 : -1]
        return [(event.slot, event.nth) for event in newest if event.slot != NONE]


def newest(trail: Trail, slot: int, most: int = 10) -> list[int]:
    rows = np.full(most, -9, np.int32)
    many = newest_of(trail, slot, rows)
    assert (rows[many:] == -9).all()
    return [int(row) for row in rows[:many]]


def takers(trail: Trail, row: int) -> list[tuple[int, int]]:
    taken = int(trail.taken_V[row])
    places = [(taken - back) % TAKERS for back in range(1, min(taken, TAKERS) + 1)]
    found = [(int(trail.taker_VA[row, place]), int(trail.nth_VA[row, place])) for place in places]
    return [(slot, nth) for slot, nth in found if slot != NONE]


def agree(audience: Audience, plain: Plain) -> None:
    for user in range(USERS):
        slot = audience.slot(f"u{user}")
        mine = plain.held_by(user)
        assert (slot == NONE) == (not mine)
        if mine:
            assert audience.seen_by(f"u{user}").tolist() == [event.row for event in mine[::-1]]
            assert newest(audience.trail, slot, 4) == [event.row for event in mine if event.row != NONE][:4]
    slots = {user: audience.slot(f"u{user}") for user in range(USERS)}
    for row in range(TITLES):
        assert takers(audience.trail, row) == [(slots[user], nth) for user, nth in plain.takers(row)]


def played(most_seen: int, steps: int, forget: float, seed: int = 1) -> tuple[Audience, Plain]:
    """A random stream on both, compared after each step."""
    random = np.random.default_rng(seed)
    audience, plain = Audience(users=2, titles=TITLES, most_seen=most_seen), Plain(most_seen)
    for _ in range(steps):
        user, row, kind = int(random.integers(USERS)), int(random.integers(TITLES)), random.random()
        if kind < forget / 2:
            audience.forget_user(f"u{user}")
            plain.forget_slot(user)
        elif kind < forget:
            audience.forget_titles(np.array([row]))
            plain.forget_row(row)
        else:
            audience.add(f"u{user}", row)
            plain.add(user, row)
        agree(audience, plain)
    return audience, plain


@pytest.mark.parametrize("most_seen", [1, 2, 13, 40, 1000])
@pytest.mark.parametrize("forget", [0.0, 0.1])
def test_both_ends_say_what_a_list_of_the_events_says(most_seen: int, forget: float) -> None:
    _, plain = played(most_seen, 300, forget)
    assert any(len(plain.held_by(user)) == most_seen for user in range(USERS)) or most_seen >= 40


def test_a_title_keeps_its_last_takers_and_each_says_which_of_theirs_it_was() -> None:
    audience = Audience()
    for n in range(TAKERS + 30):
        audience.add(f"u{n}", 1)
        audience.add(f"u{n}", 0)
        audience.add(f"u{n}", 0)
    wanted = [(n, nth) for n in range(TAKERS + 29, 29, -1) for nth in (2, 1)]
    assert takers(audience.trail, 0) == wanted[:TAKERS]
    assert takers(audience.trail, 1) == [(n, 0) for n in range(TAKERS + 29, 29, -1)]


def test_who_is_forgotten_leaves_titles_that_are_held_no_more_too() -> None:
    audience = Audience(most_seen=8)
    audience.add("gone", 3)
    for _ in range(20):
        audience.add("gone", 0)
    assert takers(audience.trail, 3) == [(0, 0)]
    audience.forget_user("gone")
    audience.add("next", 1)  # the slot's next holder
    assert (audience.slot("next"), takers(audience.trail, 3), takers(audience.trail, 0)) == (0, [], [])
    assert (newest(audience.trail, 0), takers(audience.trail, 1)) == ([1], [(0, 0)])


def test_places_that_were_left_are_used_again() -> None:
    audience = Audience(most_users=10)
    for n in range(2_000):  # each pushes another out
        for row in range(20):
            audience.add(f"u{n}", row)
    assert audience.used <= 10 * (32 + 16 + 8)
    assert audience.seen_by("u1999").tolist() == list(range(20))
    assert audience.seen_by("u1990").tolist() == list(range(20))


@pytest.mark.parametrize("most_seen", [3, 13, 1000])
def test_a_state_is_a_copy_of_what_is_held_and_what_follows_is_the_same(most_seen: int) -> None:
    audience, plain = played(most_seen, 200, 0.1)
    state = audience.state_dict(TITLES)
    other = Audience(users=2, titles=TITLES, most_seen=most_seen)
    other.load_state_dict(state)
    audience.add("u0", 0)  # not in the state
    agree(other, plain)
    for row in [*range(TITLES)] * 4:
        other.add("u0", row)
        plain.add(0, row)
        agree(other, plain)
