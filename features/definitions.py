"""What the feature store knows: entities, sources, views, the service, and the rows of the offline log.

A view's source is a folder of Parquet files that the flows only append to: `FeatureStore.push(to=OFFLINE)` rewrites one
whole file in place, which is slow and not safe against a crash. The folders are relative to the repository, so that it
can be moved. Online values are the newest row's.
"""

from datetime import timedelta
from typing import Any, Final

import features.feast_import  # noqa: F401

# isort: split

import pyarrow as pa
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bool, Float32, Int64, String

RECENT: Final = 50  # entries of a user's recent history in the feature store
USER_TTL: Final = timedelta(days=90)  # a user's online features live so long after the last event; titles stay
OFFLINE: Final = "offline"  # folder of the offline log, inside the repository

_TIME: Final = pa.timestamp("us", tz="UTC")

# One row per event: the user's features right after it. Its time is the newest event time known by then plus the user's
# count in microseconds, so that two events in one second differ and a late event never rewrites what was known before.
USER_ROW: Final = pa.schema(
    [
        ("user_id", pa.string()),
        ("event_timestamp", _TIME),
        ("created", _TIME),
        ("event_count", pa.int64()),
        ("last_title", pa.string()),
        ("last_action", pa.string()),
        ("last_event_ms", pa.int64()),
        ("recent_titles", pa.list_(pa.string())),  # newest first, as the next two
        ("recent_actions", pa.list_(pa.int64())),  # codes of actions
        ("recent_ms", pa.list_(pa.int64())),
        ("title", pa.string()),  # from here on: the event itself, offline only
        ("action", pa.string()),
        ("event_ms", pa.int64()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
    ]
)

# One row per launch that changed anything, at the title's stamp.
TITLE_ROW: Final = pa.schema(
    [
        ("title_id", pa.string()),
        ("event_timestamp", _TIME),
        ("created", _TIME),
        ("name", pa.string()),
        ("genres", pa.list_(pa.string())),
        ("year", pa.int64()),
        ("withdrawn", pa.bool_()),
        ("semantic", pa.list_(pa.float32())),  # empty where there is no text
    ]
)

# One row per viewer who asked to be forgotten: what lies at or before it goes. No view; it has no features.
FORGOTTEN: Final = "user_forgotten"
FORGOTTEN_ROW: Final = pa.schema(
    [
        ("user_id", pa.string()),
        ("partition", pa.int32()),  # of `user-events`, where the request lies
        ("offset", pa.int64()),
        ("appended", _TIME),
    ]
)

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="a viewer")
title = Entity(name="title", join_keys=["title_id"], value_type=ValueType.STRING, description="what can be watched")


def _log(view: str) -> FileSource:
    return FileSource(
        name=f"{view}_log",
        path=f"{OFFLINE}/{view}",
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )


user_activity_log = _log("user_activity")
title_semantics_log = _log("title_semantics")

# Online the views have no ttl of their own (Feast would not enforce it there): see USER_TTL.
user_activity = FeatureView(
    name="user_activity",
    description="what a viewer did lately, after the newest event",
    entities=[user],
    ttl=timedelta(0),
    schema=[
        Field(name="user_id", dtype=String),
        Field(name="event_count", dtype=Int64, description="events so far"),
        Field(name="last_title", dtype=String, description="title of the newest event, by event time"),
        Field(name="last_action", dtype=String),
        Field(name="last_event_ms", dtype=Int64, description="its time, Unix milliseconds"),
        Field(name="recent_titles", dtype=Array(String), description="newest first"),
        Field(name="recent_actions", dtype=Array(Int64), description="codes of the actions, newest first"),
        Field(name="recent_ms", dtype=Array(Int64), description="event times, newest first"),
    ],
    source=user_activity_log,
)

title_semantics = FeatureView(
    name="title_semantics",
    description="what a title is, from its launch",
    entities=[title],
    ttl=timedelta(0),
    schema=[
        Field(name="title_id", dtype=String),
        Field(name="name", dtype=String),
        Field(name="genres", dtype=Array(String)),
        Field(name="year", dtype=Int64),
        Field(name="withdrawn", dtype=Bool, description="no candidate any more"),
        Field(name="semantic", dtype=Array(Float32), description="embedding of its texts; empty where there is none"),
    ],
    source=title_semantics_log,
)

recommender = FeatureService(
    name="recommender",
    description="all that a recommendation of a title to a viewer can use",
    features=[user_activity, title_semantics],
)

ROWS: Final[dict[str, pa.Schema]] = {user_activity.name: USER_ROW, title_semantics.name: TITLE_ROW}
OBJECTS: Final[list[Any]] = [
    user,
    title,
    user_activity_log,
    title_semantics_log,
    user_activity,
    title_semantics,
    recommender,
]
