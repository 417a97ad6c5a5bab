"""A small trained version, the simulated titles and viewers that it learned from, and records made of them."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import lru_cache
from typing import Any, Final

from bytewax.testing import TestingSource
from msgspec import structs

from features.text_encoders import launch_text, load_encoder
from infra.data.datasets import DataSet
from infra.data.simulate import simulate
from model.learner import Learner, LearnerSettings, UserUpdate
from model.recommender import Recommender
from model.sequence.model import SequenceSettings
from model.sequence.network import NetworkSettings
from model.sequence.objective import ObjectiveSettings
from model.signals.ranker import RankerSettings
from model.state.stream_state import MemorySettings
from streaming.kafka.source import Message
from streaming.records import Activity, Launch, NewEvent, Title, action_code
from streaming.state.log_learner import title_metadata
from streaming.state.publisher import Publisher
from streaming.stores.redis_lists import Item, Prediction

NETWORK: Final = NetworkSettings(width=16, blocks=1, heads=2, history=20, d_id=8, d_out=16, horizons=(0, 2))
SEQUENCE: Final = SequenceSettings(NETWORK, ObjectiveSettings(negatives=16, windows=(1, 2)), replayed=4, windows=64)
RANKER: Final = RankerSettings(hard=16, easy=4, hidden=(16, 8), buffer=256, batch=32)
SETTINGS: Final = LearnerSettings(MemorySettings(history=20), SEQUENCE, RANKER, shortlist=100)
NOW: Final = 1_800_000_000_000  # ms, wall clock
HISTORY: Final = 40  # events that an activity carries


class World:
    """An audience of some twelve viewers and 60 titles: `titles` and `activities` as the log has them, in order."""

    def __init__(self, events: int = 300) -> None:
        self.data: DataSet = simulate(users=12, titles=60, events=events, days=90, seed=4)
        self.encode = load_encoder()
        self.titles = [self.title(launch, offset) for offset, launch in enumerate(self.data.launches)]
        self.activities: list[Activity] = []
        held: dict[str, list[tuple[str, int, int]]] = {}
        for offset in range(len(self.data)):
            event = self.data.event(offset)
            held.setdefault(event.user, []).append((event.title, event.ts, action_code(event)))
            self.activities.append(activity(event.user, held[event.user], offset))

    def title(self, launch: Launch, offset: int, **fields: Any) -> Title:
        """A title as the flow `titles` writes it."""
        text = launch_text(launch.name, launch.genres, launch.overview)
        known = {"name": launch.name, "genres": launch.genres, "year": launch.year, "released": None}
        times = {"launched": 0, "stamp": offset + 1, "appended": NOW, "offset": offset}
        semantic = self.encode([text])[0].astype("<f4").tobytes() if text else b""
        return Title(**{**known, **times, "title": launch.title, "withdrawn": False, "semantic": semantic, **fields})

    def newest(self) -> dict[str, Activity]:
        """Each viewer's newest activity."""
        return {activity.user: activity for activity in self.activities}


def activity(user: str, held: Sequence[tuple[str, int, int]], offset: int, new: int = 1) -> Activity:
    """A history of (title, ms, action), oldest first, whose last `new` events are new, from `offset` on."""
    shown = held[-HISTORY:]
    titles, times, actions = (list(column) for column in zip(*shown, strict=True))
    first = len(shown) - new
    events = [NewEvent(first + i, 0, offset + i, NOW + offset + i) for i in range(new)]
    return Activity(user=user, count=len(held), titles=titles, times=times, actions=actions, new=events)


@lru_cache(maxsize=1)
def world() -> World:
    """The world, made once; nobody changes it."""
    return World()


@lru_cache(maxsize=1)
def _state() -> dict[str, Any]:
    learner = Learner(SETTINGS)
    learner.observe([title_metadata(title) for title in world().titles])
    for start in range(0, len(world().activities), 10):
        batch = world().activities[start : start + 10]
        new = [[event.index for event in one.new] for one in batch]
        order = [[event.offset for event in one.new] for one in batch]
        learner.observe(
            [UserUpdate(a.user, a.titles, a.times, a.actions, n, o) for a, n, o in zip(batch, new, order, strict=True)]
        )
    return learner.state_dict()


def state() -> dict[str, Any]:
    """A learner's state after the whole world, in the parts of a checkpoint."""
    return deepcopy(_state())


def recommender() -> Recommender:
    """A version, made of it."""
    return Recommender.from_state(state(), SETTINGS)


def do_all(publisher: Publisher, now: int = NOW) -> list[Item]:
    """Work until nothing is due at `now`."""
    items: list[Item] = []
    while publisher.wait(now) == 0:
        items += publisher.work(now)
    return items


def by_user(items: Iterable[Item]) -> dict[str | None, Prediction]:
    """The last prediction of each viewer."""
    return {item.user: item for item in items if isinstance(item, Prediction)}


def again(title: Title, offset: int, **fields: Any) -> Title:
    """A later record of the same title."""
    return structs.replace(title, offset=offset, stamp=title.stamp + offset, **fields)


def message(topic: str, offset: int, value: bytes) -> Message:
    """A record as it is read."""
    return Message(topic, 0, offset, NOW, None, value)


def polls(*batches: list[Message]) -> TestingSource[list[Message]]:
    """A source of these polls."""
    return TestingSource(list(batches))
