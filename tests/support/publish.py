"""A small trained model version, the simulated titles and users it learned from, and their records."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import lru_cache
from typing import Any, Final

from bytewax.testing import TestingSource
from msgspec import structs

from features.text_encoders import launch_text, load_encoder
from infra.data.datasets import Dataset
from infra.data.simulate import simulate
from model.learner import Learner
from model.recommender import Recommender
from model.settings import (
    LearnerSettings,
    NetworkSettings,
    ObjectiveSettings,
    RankerSettings,
    SequenceSettings,
    StreamStateSettings,
)
from model.state.stream_state import UserUpdate
from streaming.kafka.source import Message
from streaming.records import Activity, Launch, NewEvent, Title, action_code
from streaming.state.publisher import Publisher
from streaming.state.title_metadata import title_metadata
from streaming.stores.redis_lists import Prediction, RedisWrite

NETWORK: Final = NetworkSettings(width=16, blocks=1, heads=2, max_history=20, d_id=8, d_out=16, horizons=(0, 2))
SEQUENCE: Final = SequenceSettings(
    NETWORK, ObjectiveSettings(negatives=16, target_windows=(1, 2)), replay_windows=4, replay_capacity=64
)
RANKER: Final = RankerSettings(
    hard_negatives=16, uniform_negatives=4, hidden=(16, 8), buffer_examples=256, batch_examples=32
)
SETTINGS: Final = LearnerSettings(StreamStateSettings(history=20), SEQUENCE, RANKER, shortlist=100)
NOW: Final = 1_800_000_000_000  # ms, wall clock
MAX_HISTORY: Final = 40  # events that an activity carries


class World:
    """Some twelve simulated users and 60 titles: `titles` and `activities` are the log's records in order."""

    def __init__(self, events: int = 300) -> None:
        self.data: Dataset = simulate(users=12, titles=60, events=events, days=90, seed=4)
        self.encode = load_encoder()
        self.titles = [self.title(launch, offset) for offset, launch in enumerate(self.data.launches)]
        self.activities: list[Activity] = []
        histories: dict[str, list[tuple[str, int, int]]] = {}
        for offset in range(len(self.data)):
            event = self.data.event(offset)
            histories.setdefault(event.user, []).append((event.title, event.ts, action_code(event)))
            self.activities.append(activity(event.user, histories[event.user], offset))

    def title(self, launch: Launch, offset: int, **fields: Any) -> Title:
        """The record that the flow `titles` writes for a launch."""
        text = launch_text(launch.name, launch.genres, launch.overview)
        metadata = {"name": launch.name, "genres": launch.genres, "year": launch.year, "released": None}
        times = {"launched": 0, "stamp": offset + 1, "appended": NOW, "offset": offset}
        semantic = self.encode([text])[0].astype("<f4").tobytes() if text else b""
        return Title(**{**metadata, **times, "title": launch.title, "withdrawn": False, "semantic": semantic, **fields})

    def newest(self) -> dict[str, Activity]:
        """Each user's newest activity."""
        return {activity.user: activity for activity in self.activities}


def activity(user: str, history: Sequence[tuple[str, int, int]], offset: int, new: int = 1) -> Activity:
    """The record of a history of (title, ms, action), oldest first; the last `new` events are new, from `offset` on."""
    recent = history[-MAX_HISTORY:]
    titles, times, actions = (list(column) for column in zip(*recent, strict=True))
    first = len(recent) - new
    events = [NewEvent(first + i, 0, offset + i, NOW + offset + i) for i in range(new)]
    return Activity(user=user, count=len(history), titles=titles, times=times, actions=actions, new=events)


@lru_cache(maxsize=1)
def world() -> World:
    """The shared world; no test changes it."""
    return World()


@lru_cache(maxsize=1)
def _state() -> dict[str, Any]:
    return trained_state(world().titles, world().activities)


def trained_state(titles: Sequence[Title], activities: Sequence[Activity]) -> dict[str, Any]:
    """The state of a learner that has learned these titles and then these activities."""
    learner = Learner(SETTINGS)
    learner.observe([title_metadata(title) for title in titles])
    for start in range(0, len(activities), 10):
        batch = activities[start : start + 10]
        new = [[event.index for event in one.new] for one in batch]
        order = [[event.offset for event in one.new] for one in batch]
        learner.observe(
            [UserUpdate(a.user, a.titles, a.times, a.actions, n, o) for a, n, o in zip(batch, new, order, strict=True)]
        )
    return learner.state_dict()


def state() -> dict[str, Any]:
    """The state of a learner that has learned the whole world, in the parts of a checkpoint."""
    return deepcopy(_state())


def recommender() -> Recommender:
    """A model version made from this state."""
    return Recommender.from_state(state(), SETTINGS)


def work_until_idle(publisher: Publisher, now: int = NOW) -> list[RedisWrite]:
    """Run the publisher until nothing is due at `now`, and return all writes."""
    items: list[RedisWrite] = []
    while publisher.seconds_until_work(now) == 0:
        items += publisher.work(now)
    return items


def predictions_by_user(items: Iterable[RedisWrite]) -> dict[str | None, Prediction]:
    """The last prediction of each user."""
    return {item.user: item for item in items if isinstance(item, Prediction)}


def later_record(title: Title, offset: int, **fields: Any) -> Title:
    """A later record of the same title."""
    return structs.replace(title, offset=offset, stamp=title.stamp + offset, **fields)


def message(topic: str, offset: int, value: bytes) -> Message:
    """A record as a source returns it."""
    return Message(topic, 0, offset, NOW, None, value)


def polls(*batches: list[Message]) -> TestingSource[list[Message]]:
    """A source that returns these polls."""
    return TestingSource(list(batches))
