"""The records of all topics, and their encoding.

Public topics (`user-events`, `erasure-requests`, `title-launches`, `title-withdrawals`) carry JSON from producers;
decoding is strict about types and ignores unknown fields. Internal topics carry msgpack, `model-versions` JSON. Ids are
strings; times are Unix milliseconds, UTC.

A record of an internal topic that no flow of this project could have written is invalid as a whole. Readers skip it.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from features.limits import MAX_EMBEDDING_WIDTH, MAX_VECTOR_WIDTH
from model.actions import ACTIONS, rating_action

MAX_ID_BYTES: Final = 256  # of an id in UTF-8; the types below limit the characters, the flows check the bytes
MAX_RATING: Final = 5
MAX_LAUNCH_BYTES: Final = 1_048_576
MAX_GENRES: Final = 100  # in a launch
MAX_GENRE_CHARS: Final = 256
Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES)]
Text = Annotated[str, Meta(max_length=65_536)]

MIN_TIME_MS: Final = -2_208_988_800_000  # 1900-01-01: the earliest valid time
MAX_STORED_MS: Final = 253_402_300_800_000  # the end of the year 9999: an upper bound of all times in internal records
MAX_PARTITIONS: Final = 4096  # of `user-events`; bounds the memory of the learner's deduplicator
MAX_VECTOR_COMPONENT: Final = 100.0  # of an embedding, which has unit length
DECODE_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # for the bytes of an invalid record
_ACTION_CODES: Final = frozenset(action.code for action in ACTIONS.values())
ACTIVITY_HISTORY: Final = 200  # default number of a user's events in an activity record

_Time = Annotated[int, Meta(ge=MIN_TIME_MS, le=MAX_STORED_MS)]
_Partition = Annotated[int, Meta(ge=0, lt=MAX_PARTITIONS)]
_Source = Annotated[str, Meta(max_length=256)]
_Offset = Annotated[int, Meta(ge=0, le=2**62)]


class Event(Struct, frozen=True, kw_only=True):
    """What one user did with one title (topic `user-events`, keyed by user). `model.actions` defines the actions.

    This is the wire format. `streaming.state.user_history.UserEvent` is the same event after validation.
    """

    user: Id
    title: Id
    ts: int  # when it happened, ms
    action: str = "play"
    rating: Annotated[float, Meta(ge=0, le=MAX_RATING)] | None = None  # if present, it determines the action
    event_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None  # default: topic, partition, offset


class ErasureRequest(Struct, frozen=True, kw_only=True):
    """A request to erase a user's data up to this record's append time (topic `erasure-requests`, keyed by user)."""

    user: Id


class Launch(Struct, frozen=True, kw_only=True):
    """A title enters the catalog or changes (topic `title-launches`, keyed by title)."""

    title: Id
    name: Text = ""
    genres: list[str] = []
    overview: Text = ""
    text: dict[str, Text] = {}  # further texts to embed, by name
    vector: Annotated[list[float], Meta(max_length=MAX_VECTOR_WIDTH)] = []  # an embedding of its own, of an image say
    space: Annotated[str, Meta(max_length=256)] = ""  # name of the vector's space
    year: int | None = None
    released: int | None = None  # release date, ms, if known
    ts: int | None = None  # launch time, ms; default: the record's append time


class TitleWithdrawal(Struct, frozen=True, kw_only=True):
    """A title must not be recommended unless a launch is appended later (topic `title-withdrawals`, keyed by title)."""

    title: Id


class NewEvent(Struct, frozen=True, array_like=True):
    """A new event: its index in an activity's history, and its position in `user-events`."""

    index: int  # in the history
    partition: _Partition  # of `user-events`
    offset: _Offset
    appended: _Time  # Kafka record time, ms


class Activity(Struct, frozen=True, tag="activity", kw_only=True):
    """A user's recent history in event-time order, oldest first, and which events are new (topic `activity`)."""

    user: Id
    count: Annotated[int, Meta(ge=0, le=2**53)]  # events of this user so far, including the new ones
    titles: list[Id]
    times: list[_Time]  # ms
    actions: list[int]  # codes of ACTIONS
    new: list[NewEvent]
    source: _Source = ""  # identity of the topic `user-events` that the events' offsets belong to


class Title(Struct, frozen=True, tag="title", kw_only=True):
    """The current state of a title (topics `titles`, compacted by title, and `activity`)."""

    title: Id
    name: str
    genres: list[str]
    year: Annotated[int, Meta(ge=0, le=9999)] | None
    released: Annotated[int, Meta(ge=-MAX_STORED_MS, le=MAX_STORED_MS)] | None  # ms, from metadata only
    launched: _Time  # event time of the first launch
    stamp: int  # us, strictly increasing per title; its event time in the feature store
    withdrawn: bool
    semantic: bytes  # embedding of text and own vector, float32 little-endian; empty if the title has neither
    appended: _Time  # Kafka record time of the launch or withdrawal, ms
    offset: _Offset  # of the launch in `title-launches`, or of the withdrawal in `title-withdrawals`
    encoder: str = ""  # name of the embedding's space; empty: not recorded

    @property
    def width(self) -> int:
        """The width of the embedding; 0 without text."""
        return len(self.semantic) // 4


class CatalogTitle(Title, frozen=True, tag="title", kw_only=True):
    """A title with its text, so that it can be embedded again by another encoder (topic `titles`)."""

    text: str = ""  # what was embedded; empty: not recorded, or no text
    vector: bytes = b""  # the launch's own vector, float32 little-endian, of unit length; empty if it has none
    space: str = ""  # of this vector
    reembedded: bool = False  # written by `premiere reembed`, which ends with a complete TextSpace


class TextSpace(Struct, frozen=True, tag="text-space", kw_only=True):
    """The texts of the titles after this record are embedded by this encoder (topics `titles` and `activity`).

    The learner starts its text part again if the encoder is not the one before.
    """

    encoder: str
    width: Annotated[int, Meta(ge=1, le=MAX_EMBEDDING_WIDTH)]
    complete: bool = True  # False: `premiere reembed` begins; it ends with another record


class UserErasure(Struct, frozen=True, tag="erasure", kw_only=True):
    """A user is erased: all data from events appended up to the request must be deleted (topic `activity`).

    If the user has later events already, an activity with all of them follows.
    """

    user: Id
    partition: _Partition  # of `erasure-requests`, where the request is
    offset: _Offset
    appended: _Time  # its Kafka record time, ms
    source: _Source = ""  # identity of that topic


class Tick(Struct, frozen=True, tag="tick", kw_only=True):
    """No event arrived for a second. It lets the learner close its last micro-batch (topic `activity`)."""

    ts: int  # ms


LogRecord = Activity | Title | TextSpace | UserErasure | Tick


class SkippedRange(Struct, frozen=True, kw_only=True):
    """A range [start, end) of `activity` that the learner read without training, after the gate failed its versions."""

    start: _Offset
    end: _Offset
    step: int  # the last step of the failed state; the next one is larger
    checkpoint_at: int  # log time of the last check, ms
    gate: dict[str, Any]  # what the gate must remember of the failure (`streaming.state.version_gate`)


class SettingsChange(Struct, frozen=True, kw_only=True):
    """Settings of the model or the learner that changed at an offset of `activity`, where the learner was restarted.

    The first change of a log, at offset 0, holds the values that differ from the release's defaults.
    """

    position: int  # the first record that was learned with them
    checked_at: int | None = None  # log time of the last check of the state that the learner restarted from, ms
    values: dict[str, Any]  # by path, for example `optimizer.lr`


class Version(Struct, frozen=True, kw_only=True):
    """An announced checkpoint (topic `model-versions`, one partition). Its number is its record's offset.

    A rollback announces an old version again and holds back later ones until a rollforward announces the newest again,
    or, if the gate rolled back, until the next version that passes. So numbers, and the revisions of lists, only
    increase.
    """

    path: str  # fsspec URL of the checkpoint folder
    step: int  # micro-batches so far
    position: int  # next offset in `activity` that it does not include
    learned: int  # events learned so far
    mrr: float | None  # prequential, over the recent window
    created: int  # ms
    cause: Literal["learned", "rollback", "rollforward"] = "learned"
    original_version: int | None = None  # the number of the version that a rollback or rollforward announces again
    automatic: bool = False  # a rollback by the gate, which the next learned version ends
    skipped: list[SkippedRange] = []  # the last ranges that it was not trained on
    settings: list[SettingsChange] = []  # with which it was learned, oldest first
    owner: int = 0  # fencing number of the learner that announced it; of a rollback, of the original version


class OwnerClaim(Struct, frozen=True, kw_only=True):
    """A process owns a worker of a flow from here on (topic `owners`, compacted by worker)."""

    flow: str
    worker: int
    workers: int  # processes of the flow
    number: int  # fencing number: higher than that of any earlier claim
    instance: str  # identity of its data folder
    process: str  # identity of the process
    host: str
    renewal: int = 0  # how often it was renewed
    released: bool = False  # the process has ended

    @property
    def key(self) -> bytes:
        """The worker."""
        return f"{self.flow}/{self.worker}".encode()

    def replaces(self, other: "OwnerClaim") -> bool:
        """Whether the two workers cannot run at once: the same one, or of groups that divide the work differently."""
        return self.flow == other.flow and (self.worker == other.worker or self.workers != other.workers)


def action_code(event: Event) -> int:
    """The code of an event's action. Raises KeyError if the action is unknown."""
    if event.rating is None:
        return ACTIONS[event.action].code
    return ACTIONS[rating_action(event.rating)].code


def decode_log(data: bytes) -> LogRecord:
    """Decode a record of `activity`.

    Raises one of DECODE_ERRORS if the record cannot be decoded, or if it contradicts itself.
    """
    record: LogRecord = _decode_log(data)
    if isinstance(record, Activity):
        _check_activity(record)
    elif isinstance(record, Title):
        _check_embedding(record)
    return record


def decode_title(data: bytes) -> Title | TextSpace:
    """Decode a record of `titles` without the title's text, as `decode_log` does."""
    record: Title | TextSpace = _decode_title(data)
    if isinstance(record, Title):
        _check_embedding(record)
    return record


def decode_catalog_title(data: bytes) -> CatalogTitle | TextSpace:
    """Decode a record of `titles`, as `decode_log` does."""
    record: CatalogTitle | TextSpace = _decode_catalog_title(data)
    if isinstance(record, Title):
        _check_embedding(record)
    return record


def _check_activity(activity: Activity) -> None:
    size, indices = len(activity.times), {event.index for event in activity.new}
    if not len(activity.titles) == len(activity.actions) == size <= activity.count:
        raise msgspec.ValidationError("the columns of the history differ in length, or it is longer than the count")
    if not _ACTION_CODES.issuperset(activity.actions):
        raise msgspec.ValidationError("the history has an unknown action")
    if activity.times != sorted(activity.times):
        raise msgspec.ValidationError("the history is not in time order")
    if len(indices) < len(activity.new) or (indices and not 0 <= min(indices) <= max(indices) < size):
        raise msgspec.ValidationError("a new event is outside the history, or occurs twice")


def _check_embedding(title: Title) -> None:
    if len(title.semantic) % 4 or title.width > MAX_EMBEDDING_WIDTH:
        raise msgspec.ValidationError(f"the text embedding has {len(title.semantic)} bytes")
    if not (np.abs(np.frombuffer(title.semantic, "<f4")) <= MAX_VECTOR_COMPONENT).all():  # also false for NaN
        raise msgspec.ValidationError("the text embedding has a component that is not finite or too large")


decode_event = msgspec.json.Decoder(Event).decode
decode_erasure_request = msgspec.json.Decoder(ErasureRequest).decode
decode_launch = msgspec.json.Decoder(Launch).decode
decode_withdrawal = msgspec.json.Decoder(TitleWithdrawal).decode
_decode_log = msgspec.msgpack.Decoder(LogRecord).decode
_decode_title = msgspec.msgpack.Decoder(Title | TextSpace).decode
_decode_catalog_title = msgspec.msgpack.Decoder(CatalogTitle | TextSpace).decode
decode_owner = msgspec.json.Decoder(OwnerClaim).decode
decode_version = msgspec.json.Decoder(Version).decode  # JSON: operators read it
to_json = msgspec.json.Encoder().encode
to_msgpack = msgspec.msgpack.Encoder().encode
