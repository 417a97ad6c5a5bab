"""A small learner, random streams and logs for it, and a bitwise comparison of states."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from model.actions import ACTIONS
from model.settings import (
    LearnerSettings,
    NetworkSettings,
    ObjectiveSettings,
    RankerSettings,
    SequenceSettings,
    StreamStateSettings,
)
from model.state.stream_state import TitleMetadata, UserUpdate
from streaming.kafka.source import Message
from streaming.records import Activity, LogRecord, NewEvent, Tick, Title, UserErasure, to_msgpack
from streaming.topics import ACTIVITY

D_TEXT: Final = 8
PLAY: Final = ACTIONS["play"].code
NETWORK: Final = NetworkSettings(
    width=16, blocks=1, heads=2, max_history=10, d_text=D_TEXT, d_id=4, d_out=8, horizons=(0, 2), dropout=0.1
)
SEQUENCE: Final = SequenceSettings(
    NETWORK, ObjectiveSettings(negatives=16, target_windows=(1, 3)), steps=1, replay_windows=3, replay_capacity=16
)
RANKER: Final = RankerSettings(
    hard_negatives=6,
    uniform_negatives=3,
    hidden=(12, 6),
    buffer_examples=64,
    batch_examples=16,
    visits_per_example=32.0,
    max_steps=2,
)
SMALL_STATE: Final = StreamStateSettings(
    d_text=D_TEXT, max_titles=30, min_users_before_launch=2, max_users=10, max_seen=12, history=10
)
LARGE_STATE: Final = StreamStateSettings(d_text=D_TEXT, history=10)  # without evictions in these tests
SETTINGS: Final = LearnerSettings(SMALL_STATE, SEQUENCE, RANKER, shortlist=10, delayed_query_share=0.5, seed=3)


def title_metadata(
    title: str,
    semantic: NDArray[np.float32] | None = None,
    genres: Sequence[str] = (),
    year: int | None = None,
    released: int | None = None,
    withdrawn: bool = False,
) -> TitleMetadata:
    vector = np.zeros(0, np.float32) if semantic is None else semantic
    return TitleMetadata(title, vector, genres, year, released, withdrawn)


def update(user: str, titles: list[str], new: int, start: int = 1_000) -> UserUpdate:
    """A user's history, one event per minute, whose last `new` events are new."""
    times = [start + 60_000 * i for i in range(len(titles))]
    indices = range(len(titles) - new, len(titles))
    return UserUpdate(user, titles, times, [PLAY] * len(titles), indices, [times[i] for i in indices])


def random_unit_vectors(random: np.random.Generator, count: int, width: int = D_TEXT) -> NDArray[np.float32]:
    vectors = random.normal(size=(count, width)).astype(np.float32)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


class RandomStream:
    """A random stream that covers the cases a learner must handle.

    Titles and users come and go. Some titles are withdrawn, relaunched, without text, or have events before their
    launch. Users have several events in one batch.
    """

    def __init__(self, seed: int = 0, users: int = 16, d_text: int = D_TEXT) -> None:
        self.random = np.random.default_rng(seed)
        self.users, self.d_text, self.now, self.events = users, d_text, 1_700_000_000_000, 0
        self.histories: dict[str, list[tuple[str, int, int]]] = {}  # (title, ms, action) by user
        self.launches = 0

    def launch(self) -> TitleMetadata:
        """Return the next title, or at times a relaunch or withdrawal of an earlier one."""
        random, kind = self.random, self.random.random()
        number = self.launches if kind > 0.2 else int(random.integers(self.launches + 1))
        self.launches += number == self.launches
        text = random_unit_vectors(random, 1, self.d_text)[0] if random.random() > 0.2 else None
        genres, year = random.choice(["a", "b", "c"], 2).tolist(), int(random.integers(1990, 2020))
        return title_metadata(f"t{number}", text, genres, year, self.now - 10**10, withdrawn=bool(kind < 0.05))

    def next_event(self) -> tuple[str, int, int]:
        """Add one event and return (user, its index in the user's history, its number)."""
        random = self.random
        self.now += int(random.exponential(600_000))
        user = f"u{random.integers(self.users)}"
        newest = max(self.launches + 1, 2)  # includes one title that has not launched yet
        title = f"t{random.integers(max(newest - 25, 0), newest)}"
        action = int(random.choice([code.code for code in ACTIONS.values()], p=[0.04] * 3 + [0.4] + [0.08] * 6))
        history = self.histories.setdefault(user, [])
        history.append((title, self.now, action))
        self.events += 1
        return user, len(history) - 1, self.events

    def batch(self, launches: int = 2, events: int = 9) -> list[TitleMetadata | UserUpdate]:
        """Return one micro-batch."""
        batch: list[TitleMetadata | UserUpdate] = [self.launch() for _ in range(launches)]
        new: dict[str, list[tuple[int, int]]] = {}
        for _ in range(events):
            user, index, number = self.next_event()
            new.setdefault(user, []).append((index, number))
        return batch + [self.user_update(user, events_of_user) for user, events_of_user in new.items()]

    def user_update(self, user: str, new: Sequence[tuple[int, int]], history: int = 20) -> UserUpdate:
        """Return the user's last `history` events; `new` are the new ones as (index, number)."""
        first = max(len(self.histories[user]) - history, 0)
        titles, times, actions = zip(*self.histories[user][first:], strict=True)
        return UserUpdate(
            user, titles, times, actions, [index - first for index, _ in new], [number for _, number in new]
        )

    def batches(self, count: int) -> list[list[TitleMetadata | UserUpdate]]:
        return [self.batch() for _ in range(count)]


def state_differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Return the paths at which two trees of state differ in any bit; lists and tuples count as equal."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return state_differences(a.detach().numpy(), b.detach().numpy(), path)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        same = (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())
        return [] if same else [f"{path} {a.dtype}{a.shape} and {b.dtype}{b.shape}"]
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if list(a) != list(b):
            return [f"{path}: keys {list(a)} and {list(b)}"]
        return [line for key in a for line in state_differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return [f"{path}: {len(a)} and {len(b)} entries"]
        return [line for i in range(len(a)) for line in state_differences(a[i], b[i], f"{path}/{i}")]
    return [] if type(a) is type(b) and repr(a) == repr(b) else [f"{path}: {a!r} and {b!r}"]


def find_in_state(state: Any, word: str, path: str = "") -> list[str]:
    """Return the paths at which a word occurs in a tree of state: in a key, a text or an array's bytes."""
    if isinstance(state, Mapping):
        keys = [f"{path}/{key}" for key in state if word in str(key)]
        return keys + [line for key, value in state.items() for line in find_in_state(value, word, f"{path}/{key}")]
    if isinstance(state, list | tuple | set):
        return [line for n, value in enumerate(state) for line in find_in_state(value, word, f"{path}/{n}")]
    if isinstance(state, np.ndarray | torch.Tensor):
        return [path] if word.encode() in np.asarray(state).tobytes() else []
    return [path] if word in str(state) else []


class LogBuilder:
    """Builds the learner log of a `RandomStream` as the flows `features` and `titles` write it.

    Activity records have random sizes. After a simulated crash some events are written again with different record
    boundaries. Titles and ticks are in between.
    """

    def __init__(self, seed: int = 0, d_text: int = D_TEXT) -> None:
        self.stream, self.random = RandomStream(seed, d_text=d_text), np.random.default_rng(seed + 1)
        self.messages: list[Message] = []
        self.record_time = 1_700_000_000_000  # ms
        self.events: list[tuple[str, int, int]] = []  # (user, index in the history, offset), of three partitions
        self.next_offset = 0  # in all three

    def write(self, record: LogRecord, later: int = 20) -> None:
        """Append the record `later` ms after the previous one."""
        self.record_time += later
        self.messages.append(Message(ACTIVITY, 0, len(self.messages), self.record_time, b"k", to_msgpack(record)))

    def launch(self) -> None:
        title = self.stream.launch()
        self.write(
            Title(
                title=title.title,
                name=title.title,
                genres=list(title.genres),
                year=title.year,
                released=title.released,
                launched=self.record_time,
                stamp=self.record_time * 1000,
                withdrawn=title.withdrawn,
                semantic=title.semantic.tobytes(),
                appended=self.record_time,
                offset=len(self.messages),
            )
        )

    def add_events(self, count: int) -> None:
        """Write this many new events, with one activity record per user."""
        began = len(self.events)
        for _ in range(count):
            user, index, _ = self.stream.next_event()
            self.note_event(user, index)
        self.write_events(self.events[began:])

    def note_event(self, user: str, index: int) -> None:
        """Give the event at `index` of the user's history the next offset."""
        self.events.append((user, index, self.next_offset))
        self.next_offset += 1

    def write_events(self, events: Sequence[tuple[str, int, int]]) -> None:
        """Write these events, old or new; the history in the record ends with the latest of them."""
        by_user: dict[str, list[tuple[int, int]]] = {}
        for user, index, offset in events:
            by_user.setdefault(user, []).append((index, offset))
        for user, new_events in by_user.items():
            stop = new_events[-1][0] + 1
            first = max(stop - 20, 0)
            titles, times, actions = zip(*self.stream.histories[user][first:stop], strict=True)
            new = [NewEvent(index - first, int(user[1:]) % 3, offset, self.record_time) for index, offset in new_events]
            columns: dict[str, Any] = {"titles": list(titles), "times": list(times), "actions": list(actions)}
            self.write(Activity(user=user, count=stop, new=new, **columns))

    def erase_user(self, user: str) -> None:
        """Write an erasure request, then enough events that no crash repeats one from before the request."""
        self.stream.histories.pop(user, None)
        offset, self.next_offset = self.next_offset, self.next_offset + 1
        self.write(UserErasure(user=user, partition=int(user[1:]) % 3, offset=offset, appended=self.record_time))
        self.add_events(12)

    def add_rounds(self, rounds: int) -> "LogBuilder":
        """Write this many rounds of launches, events, repeated events and ticks."""
        for _ in range(rounds):
            for _ in range(self.random.integers(4)):
                self.launch()
            self.add_events(int(self.random.integers(1, 9)))
            if self.random.random() < 0.2:  # a crash: the last events are repeated, one record each
                for event in self.events[-int(self.random.integers(1, 12)) :]:
                    self.write_events([event])
            if self.random.random() < 0.3:
                self.write(Tick(ts=self.record_time), later=1_000)
        return self


def activity(*offsets: int, user: str = "u") -> Activity:
    """Return a record with one play for each offset of partition 0, each of its own title and second."""
    count = len(offsets)
    new = [NewEvent(i, 0, offset, 0) for i, offset in enumerate(offsets)]
    titles, times = [f"t{offset}" for offset in offsets], [1_000 * offset for offset in offsets]
    return Activity(user=user, count=count, titles=titles, times=times, actions=[PLAY] * count, new=new)
