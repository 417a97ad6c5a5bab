"""A small random stream state with its events as plain lists, to recompute the signals of its users."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.actions import ACTIONS
from model.state.stream_state import History, StreamState
from tests.support.learner import LARGE_STATE, random_unit_vectors, title_metadata

TITLES, USERS, HISTORY, NOW = 25, 8, 30, 1_700_000_000_000
GENRES: Final = ["a", "b", "c"]
WITHOUT_EVENTS: Final = 3
WITHOUT_TEXT: Final = 4
WITHOUT_DATE: Final = 6
Event = tuple[int, int, int]  # title, ms, action


@dataclass
class World:
    """A stream state that has counted random events, and the events themselves."""

    stream_state: StreamState
    text: NDArray[np.float32]
    genres: list[list[str]]
    years: list[int | None]
    events: list[tuple[int, Event]] = field(default_factory=list)  # (user, event), in order
    histories: dict[int, list[Event]] = field(default_factory=lambda: defaultdict(list))

    def history(self, user: int) -> History:
        columns = [np.array(column, np.int64) for column in zip(*self.histories[user], strict=True)]
        return History(f"u{user}", *columns) if columns else History(f"u{user}", *[np.zeros(0, np.int64)] * 3)


def random_world() -> World:
    random = np.random.default_rng(1)
    text = random_unit_vectors(random, TITLES)
    text[WITHOUT_TEXT] = 0
    genres = [random.choice(GENRES, random.integers(1, 3), replace=False).tolist() for _ in range(TITLES)]
    years: list[int | None] = [None if n == WITHOUT_DATE else int(random.integers(1980, 2020)) for n in range(TITLES)]
    stream_state = StreamState(replace(LARGE_STATE, history=HISTORY))
    for n in range(TITLES):
        text_E, released = text[n] if n != WITHOUT_TEXT else None, NOW - n if n != WITHOUT_DATE else None
        stream_state.launch([title_metadata(f"t{n}", text_E, genres[n], years[n], released)])
    world = World(stream_state, text, genres, years)
    for n in range(160):
        user, title = int(random.integers(USERS)), int(random.integers(TITLES))
        if title == WITHOUT_EVENTS:
            continue
        ts, action = NOW - (160 - n) * 1_200_000, int(random.choice([ACTIONS["play"].code, 8, 10]))
        stream_state.count_event(world.history(user), title, ts)
        world.events.append((user, (title, ts, action)))
        world.histories[user].append((title, ts, action))
    stream_state.launch([])  # the next micro-batch
    stream_state.refresh()
    return world


WORLD: Final = random_world()
COUNT: Final = Counter(event[0] for _, event in WORLD.events)


def newest_events(user: int) -> list[Event]:
    return WORLD.histories[user][::-1][:HISTORY]


def mean_year(user: int) -> float:
    """The mean release year of the user's titles, weighted by recency."""
    dated = [(0.9**j, year) for j, (title, _, _) in enumerate(newest_events(user)) if (year := WORLD.years[title])]
    return sum(weight * year for weight, year in dated) / sum(weight for weight, _ in dated)
