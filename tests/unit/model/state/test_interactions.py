"""Tests of the interaction index: equal to a plain list of events, also after eviction, erasure and overwriting."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from model.state.interactions import EMPTY, USERS_PER_TITLE, InteractionIndex, recent_titles_of
from model.state.user_store import UserStore

USERS, TITLES = 5, 7


@dataclass(eq=False)
class Event:
    """An event, whose user and title become EMPTY when they are erased or evicted."""

    user_index: int
    row: int
    person: tuple[int, int]  # user index and generation: the index is reused after an erasure
    event_index: int  # in this person's sequence


@dataclass
class EventList:
    """The same operations on a list of all events. An erased user starts a new generation."""

    max_seen: int
    events: list[Event] = field(default_factory=list)
    generations: dict[int, int] = field(default_factory=dict)
    rows: dict[int, list[Event]] = field(default_factory=dict)  # by title, since its eviction

    def add(self, user_index: int, row: int) -> None:
        person = user_index, self.generations.get(user_index, 0)
        event = Event(user_index, row, person, sum(one.person == person for one in self.events))
        self.events.append(event)
        self.rows.setdefault(row, []).append(event)

    def remove_user(self, user_index: int) -> None:
        for event in self.events:
            if event.person == (user_index, self.generations.get(user_index, 0)):
                event.user_index = EMPTY
        self.generations[user_index] = self.generations.get(user_index, 0) + 1

    def evict_row(self, row: int) -> None:
        for event in self.rows.pop(row, ()):
            event.row = EMPTY

    def events_of(self, user_index: int) -> list[Event]:
        """Return the events that the index holds of the user, newest first."""
        person = user_index, self.generations.get(user_index, 0)
        return [event for event in self.events if event.person == person][: -self.max_seen - 1 : -1]

    def users_of(self, row: int) -> list[tuple[int, int]]:
        """Return (user index, event index), newest first, without erased users."""
        newest = self.rows.get(row, [])[: -USERS_PER_TITLE - 1 : -1]
        return [(event.user_index, event.event_index) for event in newest if event.user_index != EMPTY]


def recent_titles(interactions: InteractionIndex, user_index: int, limit: int = 10) -> list[int]:
    rows = np.full(limit, -9, np.int32)
    count = recent_titles_of(interactions, user_index, rows)
    assert (rows[count:] == -9).all()
    return [int(row) for row in rows[:count]]


def users_of(interactions: InteractionIndex, row: int) -> list[tuple[int, int]]:
    count = int(interactions.title_count_V[row])
    entries = [(count - back) % USERS_PER_TITLE for back in range(1, min(count, USERS_PER_TITLE) + 1)]
    users = interactions.title_users_VI[row, entries].tolist()
    pairs = zip(users, interactions.event_index_VI[row, entries].tolist(), strict=True)
    return [(user_index, event_index) for user_index, event_index in pairs if user_index != EMPTY]


def assert_equal(user_store: UserStore, expected: EventList) -> None:
    for user in range(USERS):
        user_index = user_store.user_index(f"u{user}")
        events = expected.events_of(user)
        assert (user_index == EMPTY) == (not events)
        if events:
            assert user_store.seen_by(f"u{user}").tolist() == [event.row for event in events[::-1]]
            rows = [event.row for event in events if event.row != EMPTY]
            assert recent_titles(user_store.interactions, user_index, 4) == rows[:4]
    user_indices = {user: user_store.user_index(f"u{user}") for user in range(USERS)}
    for row in range(TITLES):
        users = [(user_indices[user], event_index) for user, event_index in expected.users_of(row)]
        assert users_of(user_store.interactions, row) == users


def random_events(max_seen: int, steps: int, removals: float, seed: int = 1) -> tuple[UserStore, EventList]:
    """Apply random events, erasures and evictions to both and compare them after each step."""
    random = np.random.default_rng(seed)
    user_store, expected = UserStore(users=2, titles=TITLES, max_seen=max_seen), EventList(max_seen)
    for _ in range(steps):
        user, row, kind = int(random.integers(USERS)), int(random.integers(TITLES)), random.random()
        if kind < removals / 2:
            user_store.erase_user(f"u{user}")
            expected.remove_user(user)
        elif kind < removals:
            user_store.evict_titles(np.array([row]))
            expected.evict_row(row)
        else:
            user_store.add(f"u{user}", row)
            expected.add(user, row)
        assert_equal(user_store, expected)
    return user_store, expected


@pytest.mark.parametrize("max_seen", [1, 2, 13, 40, 1000])
@pytest.mark.parametrize("removals", [0.0, 0.1])
def test_index_equals_a_list_of_events(max_seen: int, removals: float) -> None:
    _, expected = random_events(max_seen, 300, removals)
    assert any(len(expected.events_of(user)) == max_seen for user in range(USERS)) or max_seen >= 40


def test_title_keeps_its_last_users_with_their_event_index() -> None:
    user_store = UserStore()
    for n in range(USERS_PER_TITLE + 30):
        user_store.add(f"u{n}", 1)
        user_store.add(f"u{n}", 0)
        user_store.add(f"u{n}", 0)
    expected = [(n, event_index) for n in range(USERS_PER_TITLE + 29, 29, -1) for event_index in (2, 1)]
    assert users_of(user_store.interactions, 0) == expected[:USERS_PER_TITLE]
    assert users_of(user_store.interactions, 1) == [(n, 0) for n in range(USERS_PER_TITLE + 29, 29, -1)]


def test_erased_user_leaves_titles_beyond_its_ring_buffer() -> None:
    user_store = UserStore(max_seen=8)
    user_store.add("erased", 3)
    for _ in range(20):
        user_store.add("erased", 0)
    assert users_of(user_store.interactions, 3) == [(0, 0)]
    user_store.erase_user("erased")
    user_store.add("next", 1)  # gets the same user index
    assert user_store.user_index("next") == 0
    assert users_of(user_store.interactions, 3) == users_of(user_store.interactions, 0) == []
    assert (recent_titles(user_store.interactions, 0), users_of(user_store.interactions, 1)) == ([1], [(0, 0)])


def test_unused_blocks_are_reused() -> None:
    user_store = UserStore(max_users=10)
    for n in range(2_000):  # each evicts another user
        for row in range(20):
            user_store.add(f"u{n}", row)
    assert user_store.arena_used <= 10 * (32 + 16 + 8)
    assert user_store.seen_by("u1999").tolist() == list(range(20))
    assert user_store.seen_by("u1990").tolist() == list(range(20))


@pytest.mark.parametrize("max_seen", [3, 13, 1000])
def test_state_is_a_copy_and_restart_changes_nothing(max_seen: int) -> None:
    user_store, expected = random_events(max_seen, 200, 0.1)
    state = user_store.state_dict(TITLES)
    restored = UserStore(users=2, titles=TITLES, max_seen=max_seen)
    restored.load_state_dict(state)
    user_store.add("u0", 0)  # added after `state_dict`
    assert_equal(restored, expected)
    for row in [*range(TITLES)] * 4:
        restored.add("u0", row)
        expected.add(0, row)
        assert_equal(restored, expected)
