"""The trail: both its ends say what a plain list of the events says, also past what was forgotten or written over."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from model.state.interactions import NONE, USERS_PER_TITLE, InteractionIndex, recent_titles_of
from model.state.user_store import UserStore

USERS, TITLES = 5, 7


@dataclass(eq=False)
class Event:
    """slot and row: NONE once forgotten · person: who, told apart from the slot's next · nth: of theirs."""

    user_index: int
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

    def add(self, user_index: int, row: int) -> None:
        person = user_index, self.lives.get(user_index, 0)
        event = Event(user_index, row, person, sum(one.person == person for one in self.events))
        self.events.append(event)
        self.rows.setdefault(row, []).append(event)

    def remove_user(self, user_index: int) -> None:
        for event in self.events:
            if event.person == (user_index, self.lives.get(user_index, 0)):
                event.user_index = NONE
        self.lives[user_index] = self.lives.get(user_index, 0) + 1

    def forget_row(self, row: int) -> None:
        for event in self.rows.pop(row, ()):
            event.row = NONE

    def held_by(self, user_index: int) -> list[Event]:
        """Newest first."""
        person = user_index, self.lives.get(user_index, 0)
        return [event for event in self.events if event.person == person][: -self.most_seen - 1 : -1]

    def takers(self, row: int) -> list[tuple[int, int]]:
        """(slot, which of their events), newest first; (NONE, ..) of the forgotten are left out."""
        newest = self.rows.get(row, [])[: -USERS_PER_TITLE - 1 : -1]
        return [(event.user_index, event.nth) for event in newest if event.user_index != NONE]


def newest(interactions: InteractionIndex, user_index: int, most: int = 10) -> list[int]:
    rows = np.full(most, -9, np.int32)
    many = recent_titles_of(interactions, user_index, rows)
    assert (rows[many:] == -9).all()
    return [int(row) for row in rows[:many]]


def takers(interactions: InteractionIndex, row: int) -> list[tuple[int, int]]:
    taken = int(interactions.title_count_V[row])
    places = [(taken - back) % USERS_PER_TITLE for back in range(1, min(taken, USERS_PER_TITLE) + 1)]
    found = [
        (int(interactions.title_users_VA[row, place]), int(interactions.event_index_VA[row, place])) for place in places
    ]
    return [(user_index, nth) for user_index, nth in found if user_index != NONE]


def agree(user_store: UserStore, plain: Plain) -> None:
    for user in range(USERS):
        user_index = user_store.user_index(f"u{user}")
        mine = plain.held_by(user)
        assert (user_index == NONE) == (not mine)
        if mine:
            assert user_store.seen_by(f"u{user}").tolist() == [event.row for event in mine[::-1]]
            assert (
                newest(user_store.interactions, user_index, 4) == [event.row for event in mine if event.row != NONE][:4]
            )
    user_indices = {user: user_store.user_index(f"u{user}") for user in range(USERS)}
    for row in range(TITLES):
        assert takers(user_store.interactions, row) == [(user_indices[user], nth) for user, nth in plain.takers(row)]


def played(most_seen: int, steps: int, forget: float, seed: int = 1) -> tuple[UserStore, Plain]:
    """A random stream on both, compared after each step."""
    random = np.random.default_rng(seed)
    user_store, plain = UserStore(users=2, titles=TITLES, most_seen=most_seen), Plain(most_seen)
    for _ in range(steps):
        user, row, kind = int(random.integers(USERS)), int(random.integers(TITLES)), random.random()
        if kind < forget / 2:
            user_store.erase_user(f"u{user}")
            plain.remove_user(user)
        elif kind < forget:
            user_store.evict_titles(np.array([row]))
            plain.forget_row(row)
        else:
            user_store.add(f"u{user}", row)
            plain.add(user, row)
        agree(user_store, plain)
    return user_store, plain


@pytest.mark.parametrize("most_seen", [1, 2, 13, 40, 1000])
@pytest.mark.parametrize("forget", [0.0, 0.1])
def test_both_ends_say_what_a_list_of_the_events_says(most_seen: int, forget: float) -> None:
    _, plain = played(most_seen, 300, forget)
    assert any(len(plain.held_by(user)) == most_seen for user in range(USERS)) or most_seen >= 40


def test_a_title_keeps_its_last_takers_and_each_says_which_of_theirs_it_was() -> None:
    user_store = UserStore()
    for n in range(USERS_PER_TITLE + 30):
        user_store.add(f"u{n}", 1)
        user_store.add(f"u{n}", 0)
        user_store.add(f"u{n}", 0)
    wanted = [(n, nth) for n in range(USERS_PER_TITLE + 29, 29, -1) for nth in (2, 1)]
    assert takers(user_store.interactions, 0) == wanted[:USERS_PER_TITLE]
    assert takers(user_store.interactions, 1) == [(n, 0) for n in range(USERS_PER_TITLE + 29, 29, -1)]


def test_who_is_forgotten_leaves_titles_that_are_held_no_more_too() -> None:
    user_store = UserStore(most_seen=8)
    user_store.add("gone", 3)
    for _ in range(20):
        user_store.add("gone", 0)
    assert takers(user_store.interactions, 3) == [(0, 0)]
    user_store.erase_user("gone")
    user_store.add("next", 1)  # the slot's next holder
    assert (user_store.user_index("next"), takers(user_store.interactions, 3), takers(user_store.interactions, 0)) == (
        0,
        [],
        [],
    )
    assert (newest(user_store.interactions, 0), takers(user_store.interactions, 1)) == ([1], [(0, 0)])


def test_places_that_were_left_are_used_again() -> None:
    user_store = UserStore(most_users=10)
    for n in range(2_000):  # each pushes another out
        for row in range(20):
            user_store.add(f"u{n}", row)
    assert user_store.used <= 10 * (32 + 16 + 8)
    assert user_store.seen_by("u1999").tolist() == list(range(20))
    assert user_store.seen_by("u1990").tolist() == list(range(20))


@pytest.mark.parametrize("most_seen", [3, 13, 1000])
def test_a_state_is_a_copy_of_what_is_held_and_what_follows_is_the_same(most_seen: int) -> None:
    user_store, plain = played(most_seen, 200, 0.1)
    state = user_store.state_dict(TITLES)
    other = UserStore(users=2, titles=TITLES, most_seen=most_seen)
    other.load_state_dict(state)
    user_store.add("u0", 0)  # not in the state
    agree(other, plain)
    for row in [*range(TITLES)] * 4:
        other.add("u0", row)
        plain.add(0, row)
        agree(other, plain)
