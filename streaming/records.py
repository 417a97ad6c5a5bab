"""The records of all topics, and their encoding.

Public topics (`user-events`, `title-launches`) carry JSON from producers; decoding is strict about types and ignores
unknown fields. Internal topics carry msgpack, `model-versions` JSON. Ids are strings; times are Unix milliseconds, UTC.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from model.actions import ACTIONS, rating_action

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Text = Annotated[str, Meta(max_length=65_536)]

MIN_TIME_MS: Final = -2_208_988_800_000  # 1900-01-01: the earliest valid time
ACTIVITY_HISTORY: Final = 200  # default number of a user's events in an activity record


class Event(Struct, frozen=True, kw_only=True):
    """What one user did with one title (topic `user-events`, keyed by user). `model.actions` defines the actions.

    This is the wire format. `streaming.state.user_history.UserEvent` is the same event after validation.
    """

    user: Id
    title: Id
    ts: int  # when it happened, ms
    action: str = "play"
    rating: Annotated[float, Meta(ge=0, le=5)] | None = None  # if present, it determines the action
    event_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None  # default: topic, partition, offset


class EraseUser(Struct, frozen=True, kw_only=True):
    """A request to erase a user's data up to this record (topic `user-events`, keyed by user)."""

    user: Id
    erase: bool  # must be true; otherwise the record is decoded as an Event


class Launch(Struct, frozen=True, kw_only=True):
    """A title enters the catalog, changes or is withdrawn (topic `title-launches`, keyed by title)."""

    title: Id
    name: Text = ""
    genres: list[str] = []
    overview: Text = ""
    text: dict[str, Text] = {}  # further texts to embed, by name
    year: int | None = None
    released: int | None = None  # release date, ms, if known
    ts: int | None = None  # launch time, ms; default: the record's append time
    withdrawn: bool = False


class NewEvent(Struct, frozen=True, array_like=True):
    """A new event: its index in an activity's history, and its position in `user-events`."""

    index: int  # in the history
    partition: int  # of `user-events`
    offset: int
    appended: int  # Kafka record time, ms


class Activity(Struct, frozen=True, tag="activity", kw_only=True):
    """A user's recent history in event-time order, oldest first, and which events are new (topic `activity`)."""

    user: str
    count: int  # events of this user so far, including the new ones
    titles: list[str]
    times: list[int]  # ms
    actions: list[int]  # codes of ACTIONS
    new: list[NewEvent]


class Title(Struct, frozen=True, tag="title", kw_only=True):
    """The current state of a title (topics `titles`, compacted by title, and `activity`)."""

    title: str
    name: str
    genres: list[str]
    year: int | None
    released: int | None  # ms, from metadata only, never the launch time
    launched: int  # ms, event time of the first launch
    stamp: int  # us, strictly increasing per title; its event time in the feature store
    withdrawn: bool
    semantic: bytes  # embedding, float32 little-endian; empty if the title has no text
    appended: int  # Kafka record time of the launch, ms
    offset: int  # of the launch in `title-launches`


class UserErasure(Struct, frozen=True, tag="erasure", kw_only=True):
    """A user is erased: all data from events up to this offset must be deleted (topic `activity`)."""

    user: str
    partition: int  # of `user-events`, where the request is
    offset: int
    appended: int  # its Kafka record time, ms


class Tick(Struct, frozen=True, tag="tick", kw_only=True):
    """No event arrived for a second. It lets a reader of the log close its last batch (topic `activity`)."""

    ts: int  # ms


LogRecord = Activity | Title | UserErasure | Tick


class Version(Struct, frozen=True, kw_only=True):
    """An announced checkpoint (topic `model-versions`, one partition). Its number is its record's offset.

    A rollback announces an old version again and holds back later ones until a rollforward announces the newest again.
    So numbers, and the revisions of lists, only increase.
    """

    path: str  # fsspec URL of the checkpoint folder
    step: int  # micro-batches so far
    position: int  # next offset in `activity` that it does not include
    learned: int  # events learned so far
    mrr: float | None  # prequential, over the recent window
    created: int  # ms
    cause: Literal["learned", "rollback", "rollforward"] = "learned"
    original_version: int | None = None  # the number of the version that a rollback or rollforward announces again


def action_code(event: Event) -> int:
    """The code of an event's action. Raises KeyError if the action is unknown."""
    if event.rating is None:
        return ACTIONS[event.action].code
    return ACTIONS[rating_action(event.rating)].code


decode_event = msgspec.json.Decoder(Event).decode
decode_erase_user = msgspec.json.Decoder(EraseUser).decode
decode_launch = msgspec.json.Decoder(Launch).decode
decode_log = msgspec.msgpack.Decoder(LogRecord).decode
decode_title = msgspec.msgpack.Decoder(Title).decode
decode_version = msgspec.json.Decoder(Version).decode  # JSON: operators read it
to_json = msgspec.json.Encoder().encode
to_msgpack = msgspec.msgpack.Encoder().encode
