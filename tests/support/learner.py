"""A small learner, a small random stream and log for it, and the comparison that lets no bit differ."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from model.actions import ACTIONS
from model.learner import LearnerSettings, UserUpdate
from model.sequence.model import SequenceSettings
from model.sequence.network import NetworkSettings
from model.sequence.objective import ObjectiveSettings
from model.signals.ranker import RankerSettings
from model.state.stream_state import MemorySettings, TitleMetadata
from streaming.kafka.source import Message
from streaming.records import Activity, Forgotten, LogRecord, NewEvent, Tick, Title, to_msgpack
from streaming.topics import ACTIVITY

D_TEXT: Final = 8
PLAY: Final = ACTIONS["play"].code
NETWORK: Final = NetworkSettings(
    width=16, blocks=1, heads=2, history=10, d_text=D_TEXT, d_id=4, d_out=8, horizons=(0, 2), dropout=0.1
)
SEQUENCE: Final = SequenceSettings(
    NETWORK, ObjectiveSettings(negatives=16, windows=(1, 3)), steps=1, replayed=3, windows=16
)
RANKER: Final = RankerSettings(hard=6, easy=3, hidden=(12, 6), buffer=64, batch=16, visits=32.0, steps=2)
MEMORY: Final = MemorySettings(d_text=D_TEXT, most_titles=30, most_users=10, most_seen=12, history=10)
SETTINGS: Final = LearnerSettings(MEMORY, SEQUENCE, RANKER, shortlist=10, delayed=0.5, seed=3)
ROOMY: Final = MemorySettings(d_text=D_TEXT, history=10)  # nothing is evicted from it


def launched(
    title: str,
    semantic: NDArray[np.float32] | None = None,
    genres: Sequence[str] = (),
    year: int | None = None,
    released: int | None = None,
    withdrawn: bool = False,
) -> TitleMetadata:
    vector = np.zeros(0, np.float32) if semantic is None else semantic
    return TitleMetadata(title, vector, genres, year, released, withdrawn)


def directions(random: np.random.Generator, many: int, width: int = D_TEXT) -> NDArray[np.float32]:
    """Random unit vectors."""
    vectors = random.normal(size=(many, width)).astype(np.float32)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


class Stream:
    """A stream in which all that a learner must get right happens: titles and users come and go, some titles are
    withdrawn, relaunched, without text or watched before they launch, users act several times in a batch."""

    def __init__(self, seed: int = 0, users: int = 16, d_text: int = D_TEXT) -> None:
        self.random = np.random.default_rng(seed)
        self.users, self.d_text, self.now, self.events = users, d_text, 1_700_000_000_000, 0
        self.histories: dict[str, list[tuple[str, int, int]]] = {}
        self.launches = 0

    def launch(self) -> TitleMetadata:
        """The next title; now and then an earlier one again, or its withdrawal."""
        random, kind = self.random, self.random.random()
        number = self.launches if kind > 0.2 else int(random.integers(self.launches + 1))
        self.launches += number == self.launches
        text = directions(random, 1, self.d_text)[0] if random.random() > 0.2 else None
        genres, year = random.choice(["a", "b", "c"], 2).tolist(), int(random.integers(1990, 2020))
        return launched(f"t{number}", text, genres, year, self.now - 10**10, withdrawn=bool(kind < 0.05))

    def happen(self) -> tuple[str, int, int]:
        """One more event: (user, its place in the user's history, its number)."""
        random = self.random
        self.now += int(random.exponential(600_000))
        user = f"u{random.integers(self.users)}"
        newest = max(self.launches + 1, 2)  # one title that is not out yet can be watched too
        title = f"t{random.integers(max(newest - 25, 0), newest)}"
        action = int(random.choice([code.code for code in ACTIONS.values()], p=[0.04] * 3 + [0.4] + [0.08] * 6))
        history = self.histories.setdefault(user, [])
        history.append((title, self.now, action))
        self.events += 1
        return user, len(history) - 1, self.events

    def batch(self, launches: int = 2, events: int = 9) -> list[TitleMetadata | UserUpdate]:
        """What one micro-batch of a learner may be."""
        batch: list[TitleMetadata | UserUpdate] = [self.launch() for _ in range(launches)]
        new: dict[str, list[tuple[int, int]]] = {}
        for _ in range(events):
            user, place, number = self.happen()
            new.setdefault(user, []).append((place, number))
        return batch + [self.user_update(user, places) for user, places in new.items()]

    def user_update(self, user: str, new: Sequence[tuple[int, int]], history: int = 20) -> UserUpdate:
        """A user's bounded history with its new events, (place, number) each."""
        first = max(len(self.histories[user]) - history, 0)
        titles, times, actions = zip(*self.histories[user][first:], strict=True)
        return UserUpdate(
            user, titles, times, actions, [place - first for place, _ in new], [number for _, number in new]
        )

    def batches(self, many: int) -> list[list[TitleMetadata | UserUpdate]]:
        return [self.batch() for _ in range(many)]


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two trees of state differ by so much as a bit; lists and tuples are the same."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return differences(a.detach().numpy(), b.detach().numpy(), path)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        same = (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())
        return [] if same else [f"{path} {a.dtype}{a.shape} and {b.dtype}{b.shape}"]
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if list(a) != list(b):
            return [f"{path}: keys {list(a)} and {list(b)}"]
        return [line for key in a for line in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return [f"{path}: {len(a)} and {len(b)} entries"]
        return [line for i in range(len(a)) for line in differences(a[i], b[i], f"{path}/{i}")]
    return [] if type(a) is type(b) and repr(a) == repr(b) else [f"{path}: {a!r} and {b!r}"]


def holds(state: Any, word: str, path: str = "") -> list[str]:
    """Where in a tree of state a word stands: as a key or in a value, text or bytes."""
    if isinstance(state, Mapping):
        keys = [f"{path}/{key}" for key in state if word in str(key)]
        return keys + [line for key, value in state.items() for line in holds(value, word, f"{path}/{key}")]
    if isinstance(state, list | tuple | set):
        return [line for n, value in enumerate(state) for line in holds(value, word, f"{path}/{n}")]
    if isinstance(state, np.ndarray | torch.Tensor):
        return [path] if word.encode() in np.asarray(state).tobytes() else []
    return [path] if word in str(state) else []


class Log:
    """The learner's log of a `Stream`, as the flows `features` and `titles` write it: activities cut by chance, some
    written again and cut differently after a crash, titles, ticks."""

    def __init__(self, seed: int = 0, d_text: int = D_TEXT) -> None:
        self.stream, self.random = Stream(seed, d_text=d_text), np.random.default_rng(seed + 1)
        self.messages: list[Message] = []
        self.at = 1_700_000_000_000  # record time, ms
        self.events: list[tuple[str, int, int]] = []  # user, place in the history, offset: three source partitions

    def write(self, record: LogRecord, later: int = 20) -> None:
        self.at += later
        self.messages.append(Message(ACTIVITY, 0, len(self.messages), self.at, b"k", to_msgpack(record)))

    def launch(self) -> None:
        one = self.stream.launch()
        self.write(
            Title(
                title=one.title, name=one.title, genres=list(one.genres), year=one.year, released=one.released,
                launched=self.at, stamp=self.at * 1000, withdrawn=one.withdrawn, semantic=one.semantic.tobytes(),
                appended=self.at, offset=len(self.messages),
            )
        )  # fmt: skip

    def happen(self, many: int) -> None:
        """So many events, in one activity a user."""
        began = len(self.events)
        for _ in range(many):
            user, place, _ = self.stream.happen()
            self.events.append((user, place, len(self.events)))
        self.tell(self.events[began:])

    def tell(self, events: Sequence[tuple[str, int, int]]) -> None:
        """Write these events, whenever they happened: the history ends with the newest of them."""
        by_user: dict[str, list[tuple[int, int]]] = {}
        for user, place, offset in events:
            by_user.setdefault(user, []).append((place, offset))
        for user, places in by_user.items():
            stop = places[-1][0] + 1
            first = max(stop - 20, 0)
            titles, times, actions = zip(*self.stream.histories[user][first:stop], strict=True)
            new = [NewEvent(place - first, int(user[1:]) % 3, offset, self.at) for place, offset in places]
            columns = {"titles": list(titles), "times": list(times), "actions": list(actions)}
            self.write(Activity(user=user, count=stop, new=new, **columns))

    def forget(self, user: str) -> None:
        """Forget a user, and let enough happen that no crash writes what was before again."""
        self.stream.histories.pop(user, None)
        where = {"partition": int(user[1:]) % 3, "offset": 10**6 + len(self.messages)}
        self.write(Forgotten(user=user, appended=self.at, **where))
        self.happen(12)

    def play(self, rounds: int) -> "Log":
        """Let things happen."""
        for _ in range(rounds):
            for _ in range(self.random.integers(4)):
                self.launch()
            self.happen(int(self.random.integers(1, 9)))
            if self.random.random() < 0.2:  # a crash: the last events once more, one record each
                for event in self.events[-int(self.random.integers(1, 12)) :]:
                    self.tell([event])
            if self.random.random() < 0.3:
                self.write(Tick(ts=self.at), later=1_000)
        return self


def activity(*offsets: int, user: str = "u") -> Activity:
    """The plays at these offsets of partition 0, each of a title and at a second of its own."""
    many = len(offsets)
    new = [NewEvent(i, 0, offset, 0) for i, offset in enumerate(offsets)]
    titles, times = [f"t{offset}" for offset in offsets], [1_000 * offset for offset in offsets]
    return Activity(user=user, count=many, titles=titles, times=times, actions=[PLAY] * many, new=new)
