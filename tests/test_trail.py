"""The trail: its links lead where a plain list of the events leads, also past what was forgotten or let go."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from model.trail import (
    AFTER,
    BEFORE,
    EARLIER,
    NONE,
    ROW,
    SLOT,
    Sorted,
    Trail,
    add_event,
    empty_trail,
    forget_row,
    forget_slot,
    grown,
    leave_sorted,
    newest_of,
    oldest,
    sort_trail,
    trail_state,
    unsorted,
)

USERS, TITLES = 5, 7


@dataclass(eq=False)
class Event:
    """slot and row: NONE once forgotten · person and work: who and what, told apart from a slot's or row's next."""

    slot: int
    row: int
    person: tuple[int, int]
    work: tuple[int, int]


@dataclass
class Plain:
    """The same by lists: all events ever; a forgotten slot or row begins another life."""

    size: int
    events: list[Event] = field(default_factory=list)
    lives: dict[tuple[str, int], int] = field(default_factory=dict)

    def person(self, slot: int) -> tuple[int, int]:
        return slot, self.lives.get(("slot", slot), 0)

    def work(self, row: int) -> tuple[int, int]:
        return row, self.lives.get(("row", row), 0)

    def add(self, slot: int, row: int) -> None:
        self.events.append(Event(slot, row, self.person(slot), self.work(row)))

    def forget_slot(self, slot: int) -> None:
        for event in self.held_by(slot):
            event.slot = event.row = NONE
        self.lives["slot", slot] = self.person(slot)[1] + 1

    def forget_row(self, row: int) -> None:
        for event in self.held_of(row):
            event.row = NONE
        self.lives["row", row] = self.work(row)[1] + 1

    def held(self) -> list[Event]:
        """Newest first."""
        return self.events[-self.size :][::-1]

    def held_by(self, slot: int) -> list[Event]:
        return [event for event in self.held() if event.person == self.person(slot)]

    def held_of(self, row: int) -> list[Event]:
        return [event for event in self.held() if event.work == self.work(row)]


def walk(trail: Trail, number: int, way: int) -> list[tuple[int, int]]:
    """(slot, row) of the held events from `number` on along one kind of link."""
    found = []
    while number >= oldest(trail):
        link = trail.link_E5[number % len(trail.link_E5)]
        found.append((int(link[SLOT]), int(link[ROW])))
        number = int(link[way])
    return found


def newest(trail: Trail, slot: int, most: int = 10, known: Sorted | None = None) -> list[int]:
    rows = np.full(most, -9, np.int32)
    many = newest_of(trail, unsorted() if known is None else known, slot, rows)
    assert (rows[many:] == -9).all()
    return [int(row) for row in rows[:many]]


def takers(known: Sorted, row: int) -> list[int]:
    return [int(slot) for slot in known.taker_E[known.taker_V[row] : known.taker_V[row + 1]]]


def agree(trail: Trail, plain: Plain, users: int = USERS, titles: int = TITLES) -> None:
    known = sort_trail(trail)
    for slot in range(users):
        mine = plain.held_by(slot)
        assert walk(trail, int(trail.last_U[slot]), BEFORE) == [(event.slot, event.row) for event in mine]
        assert newest(trail, slot, 4) == [event.row for event in mine if event.row != NONE][:4]
        assert newest(trail, slot, 4, known) == newest(trail, slot, 4)
        if mine:
            last = len(plain.events) - 1 - plain.held().index(mine[-1])
            assert walk(trail, last, AFTER) == [(event.slot, event.row) for event in mine[::-1]]
    for row in range(titles):
        took = [(event.slot, event.row) for event in plain.held_of(row)]
        assert walk(trail, int(trail.last_V[row]), EARLIER) == took
        assert takers(known, row) == [slot for slot, found in took if found != NONE]


def played(size: int, steps: int, forget: float, seed: int = 1) -> tuple[Trail, Plain]:
    """A random stream on both, compared after each step."""
    random, trail, plain = np.random.default_rng(seed), empty_trail(size, USERS, TITLES), Plain(size)
    for _ in range(steps):
        slot, row, kind = int(random.integers(USERS)), int(random.integers(TITLES)), random.random()
        if kind < forget / 2:
            forget_slot(trail, slot)
            plain.forget_slot(slot)
        elif kind < forget:
            forget_row(trail, row)
            plain.forget_row(row)
        else:
            add_event(trail, slot, row)
            plain.add(slot, row)
        agree(trail, plain)
    return trail, plain


@pytest.mark.parametrize("size", [1, 2, 13, 40, 1000])
@pytest.mark.parametrize("forget", [0.0, 0.15])
def test_every_walk_goes_where_a_list_of_the_events_goes(size: int, forget: float) -> None:
    trail, plain = played(size, 150, forget)
    assert trail.written_1[0] == len(plain.events)
    assert (len(plain.events) > size) == (size < 100)


def test_nothing_leads_anywhere_at_the_beginning() -> None:
    trail = empty_trail(4, USERS, TITLES)
    agree(trail, Plain(4))
    assert oldest(trail) == trail.written_1[0] == 0
    forget_slot(trail, 1)
    forget_row(trail, 1)
    agree(trail, Plain(4))


def test_titles_come_newest_first_and_as_many_as_there_is_room_for() -> None:
    trail = empty_trail(100, 2, TITLES)
    for row in (5, 3, 3, 6):
        add_event(trail, 0, row)
        add_event(trail, 1, 0)
    assert newest(trail, 0) == [6, 3, 3, 5]
    assert newest(trail, 0, 3) == [6, 3, 3]
    assert newest(trail, 0, 0) == []


def test_who_is_forgotten_is_passed_by_and_leaves_no_name() -> None:
    trail = empty_trail(100, 4, TITLES)
    for slot, row in ((0, 2), (1, 2), (1, 4), (0, 4), (3, 2)):
        add_event(trail, slot, row)
    forget_slot(trail, 1)
    assert walk(trail, int(trail.last_V[2]), EARLIER) == [(3, 2), (NONE, NONE), (0, 2)]
    assert 1 not in trail.link_E5[:5, SLOT]
    add_event(trail, 1, 2)  # the slot's next holder
    assert newest(trail, 1) == [2]
    forget_row(trail, 2)
    assert newest(trail, 0) == [4]
    assert 2 not in trail.link_E5[:6, ROW]
    assert walk(trail, int(trail.last_U[0]), BEFORE) == [(0, 4), (0, NONE)]


def test_room_changes_no_walk_and_what_follows_finds_it() -> None:
    trail, plain = played(200, 120, 0.1)
    wide = grown(trail, events=50, users=3, titles=2)
    assert [len(wide.link_E5), len(wide.last_U), len(wide.last_V)] == [250, USERS + 3, TITLES + 2]
    plain.size = 250
    agree(wide, plain, USERS + 3, TITLES + 2)
    for slot, row in ((USERS + 2, TITLES + 1), (0, TITLES + 1), (USERS + 2, 0)):
        add_event(wide, slot, row)
        plain.add(slot, row)
        agree(wide, plain, USERS + 3, TITLES + 2)


@pytest.mark.parametrize("size", [13, 1000])
def test_a_state_is_a_copy_of_what_is_held_also_where_the_ring_is_written_over(size: int) -> None:
    trail, plain = played(size, 100, 0.1)
    state = trail_state(trail, USERS, TITLES)
    other = empty_trail(size, USERS, TITLES)
    for name, saved in state.items():
        getattr(other, name)[: len(saved)] = saved
    assert len(state["link_E5"]) == min(size, len(plain.events))
    add_event(trail, 0, 0)  # not in the state
    agree(other, plain)
    add_event(other, 0, 0)
    plain.add(0, 0)
    agree(other, plain)


def test_who_is_forgotten_leaves_a_sorted_trail_too() -> None:
    trail, _ = played(40, 60, 0.0)
    known = sort_trail(trail)
    leave_sorted(known, 2)
    forget_slot(trail, 2)
    for slot in range(USERS):
        assert newest(trail, slot, 9, known) == newest(trail, slot, 9)
    for row in range(TITLES):
        assert [slot for slot in takers(known, row) if slot != NONE] == takers(sort_trail(trail), row)
