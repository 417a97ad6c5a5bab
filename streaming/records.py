"""The records that cross a topic, and what they mean.

Public topics (`user-events`, `title-launches`) carry JSON that people write; decoding is strict about types and open to
unknown fields. Internal topics carry msgpack. Ids are strings; times are Unix milliseconds, UTC.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from model.actions import ACTIONS, rated

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Text = Annotated[str, Meta(max_length=65_536)]

FLOOR_MS: Final = -2_208_988_800_000  # 1900-01-01: the absolute floor of any time
HISTORY: Final = 200  # events of a user that an activity carries


class Event(Struct, frozen=True, kw_only=True):
    """One thing one viewer did (topic `user-events`, keyed by user); `model.actions.ACTIONS` says what an action
    means."""

    user: Id
    title: Id
    ts: int  # when it happened, ms
    action: str = "play"
    rating: Annotated[float, Meta(ge=0, le=5)] | None = None  # with one, `action` is read as a rating
    event_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None  # else topic, partition, offset


class Forget(Struct, frozen=True, kw_only=True):
    """A viewer is to be forgotten: everything up to this record (topic `user-events`, keyed by user)."""

    user: Id
    forget: bool  # true; without it, or with another value, the record is read as an Event


class Launch(Struct, frozen=True, kw_only=True):
    """A title appears, changes or is withdrawn (topic `title-launches`, keyed by title)."""

    title: Id
    name: Text = ""
    genres: list[str] = []
    overview: Text = ""
    text: dict[str, Text] = {}  # any further texts to embed, by name
    year: int | None = None
    released: int | None = None  # release date, ms, where the metadata knows it
    ts: int | None = None  # when it launched, ms; else the record's append time
    withdrawn: bool = False


class NewEvent(Struct, frozen=True, array_like=True):
    """Which entry of an activity's history is new, and where it came from."""

    index: int  # position in the history
    partition: int  # of `user-events`
    offset: int
    appended: int  # Kafka record time, ms


class Activity(Struct, frozen=True, tag="activity", kw_only=True):
    """A user's recent history in event-time order (oldest first), and which of it is new (topic `activity`)."""

    user: str
    count: int  # events of this user so far, these included
    titles: list[str]
    times: list[int]  # ms
    actions: list[int]  # codes of ACTIONS
    new: list[NewEvent]


class Title(Struct, frozen=True, tag="title", kw_only=True):
    """A title as the system knows it (topics `titles`, compacted by title, and `activity`)."""

    title: str
    name: str
    genres: list[str]
    year: int | None
    released: int | None  # ms, from metadata only: never the launch
    launched: int  # ms, event time of the first launch
    stamp: int  # us, strictly rising per title: the feature store's time
    withdrawn: bool
    semantic: bytes  # float32 little-endian; empty where there is no text
    appended: int  # Kafka record time of the launch, ms
    offset: int  # of the launch in `title-launches`


class Forgotten(Struct, frozen=True, tag="forget", kw_only=True):
    """A user's past ends here: whatever is kept of the events up to this offset goes (topic `activity`)."""

    user: str
    partition: int  # of `user-events`, where the request lies
    offset: int
    appended: int  # its Kafka record time, ms


class Tick(Struct, frozen=True, tag="tick", kw_only=True):
    """Nothing came for a second: lets a reader of the log close its last batch."""

    ts: int  # ms


LogRecord = Activity | Title | Forgotten | Tick


class Version(Struct, frozen=True, kw_only=True):
    """A checkpoint announced (topic `model-versions`, one partition; its number is its record's offset).

    A rollback announces an old version again and holds later ones back, until a record that resumes announces the
    newest again: numbers, and so revisions, only rise.
    """

    path: str  # fsspec URL of the checkpoint folder
    step: int  # micro-batches so far
    position: int  # next offset in `activity` that it has not learned
    learned: int  # events learned so far
    mrr: float | None  # prequential, over the recent window
    created: int  # ms
    cause: Literal["learned", "rollback", "resume"] = "learned"
    of: int | None = None  # what is announced again: its number then


def action_code(event: Event) -> int:
    """The code of what an event says. Raises KeyError for an unknown action."""
    if event.rating is None:
        return ACTIONS[event.action].code
    return ACTIONS[rated(event.rating)].code


decode_event = msgspec.json.Decoder(Event).decode
decode_forget = msgspec.json.Decoder(Forget).decode
decode_launch = msgspec.json.Decoder(Launch).decode
decode_log = msgspec.msgpack.Decoder(LogRecord).decode
decode_title = msgspec.msgpack.Decoder(Title).decode
decode_version = msgspec.json.Decoder(Version).decode  # JSON: operators read it
to_json = msgspec.json.Encoder().encode
to_msgpack = msgspec.msgpack.Encoder().encode
