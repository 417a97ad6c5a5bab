"""Everything that Feast knows: entities, sources, views and the service; and the schemas of the offline log.

A view's source is a folder of Parquet files that the flows only append to. `FeatureStore.push` to the offline store
would rewrite one file in place, which is slow and not safe against a crash. The folders are relative to the repository,
so that the repository can be moved. The online store keeps each entity's newest row.
"""

from datetime import timedelta
from typing import Any, Final

import features.feast_import  # noqa: F401

# isort: split

import pyarrow as pa
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bool, Float32, Int64, String

USER_TTL: Final = timedelta(days=90)  # after a user's last event; titles do not expire
OFFLINE_FOLDER: Final = "offline"  # the offline log, inside the repository

_TIME: Final = pa.timestamp("us", tz="UTC")

# One row per event: the user's features right after it. The timestamp is the newest event time so far plus the user's
# event count in microseconds. So two events in one second differ, and a late event never changes an earlier row.
USER_ACTIVITY_SCHEMA: Final = pa.schema(
    [
        ("user_id", pa.string()),
        ("event_timestamp", _TIME),
        ("created", _TIME),
        ("event_count", pa.int64()),
        ("last_title", pa.string()),
        ("last_action", pa.string()),
        ("last_event_ms", pa.int64()),
        ("recent_titles", pa.list_(pa.string())),  # newest first, as are the next two
        ("recent_actions", pa.list_(pa.int64())),  # codes of actions
        ("recent_ms", pa.list_(pa.int64())),
        ("title", pa.string()),  # from here on: the event itself, only in the offline log
        ("action", pa.string()),
        ("event_ms", pa.int64()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("oldest_created", _TIME),  # of the oldest counted event: a later erasure request removes the row
    ]
)

# One row per launch that changed the title, at the title's stamp.
TITLE_SEMANTICS_SCHEMA: Final = pa.schema(
    [
        ("title_id", pa.string()),
        ("event_timestamp", _TIME),
        ("created", _TIME),
        ("name", pa.string()),
        ("genres", pa.list_(pa.string())),
        ("year", pa.int64()),
        ("withdrawn", pa.bool_()),
        ("semantic", pa.list_(pa.float32())),  # empty without text
    ]
)

# One row per request to erase a user: compaction deletes the user's rows with records appended up to it, and then the
# request. It has no view.
USER_ERASURES: Final = "user_erasures"
USER_ERASURES_SCHEMA: Final = pa.schema([("user_id", pa.string()), ("appended", _TIME)])

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="a person or account")
title = Entity(name="title", join_keys=["title_id"], value_type=ValueType.STRING, description="an item of the catalog")


def _log(view: str) -> FileSource:
    return FileSource(
        name=f"{view}_log",
        path=f"{OFFLINE_FOLDER}/{view}",
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )


user_activity_log = _log("user_activity")
title_semantics_log = _log("title_semantics")

# The views have no ttl, because Feast would not enforce it online: see USER_TTL.
user_activity = FeatureView(
    name="user_activity",
    description="a user's recent events, as of the newest event",
    entities=[user],
    ttl=timedelta(0),
    schema=[
        Field(name="user_id", dtype=String),
        Field(name="event_count", dtype=Int64, description="events so far"),
        Field(name="last_title", dtype=String, description="title of the newest event, by event time"),
        Field(name="last_action", dtype=String, description="action of the newest event"),
        Field(name="last_event_ms", dtype=Int64, description="time of the newest event, Unix milliseconds"),
        Field(name="recent_titles", dtype=Array(String), description="newest first"),
        Field(name="recent_actions", dtype=Array(Int64), description="codes of the actions, newest first"),
        Field(name="recent_ms", dtype=Array(Int64), description="event times, newest first"),
    ],
    source=user_activity_log,
)

title_semantics = FeatureView(
    name="title_semantics",
    description="a title's metadata and text embedding, from its launch",
    entities=[title],
    ttl=timedelta(0),
    schema=[
        Field(name="title_id", dtype=String),
        Field(name="name", dtype=String),
        Field(name="genres", dtype=Array(String)),
        Field(name="year", dtype=Int64),
        Field(name="withdrawn", dtype=Bool, description="whether the title must not be recommended"),
        Field(name="semantic", dtype=Array(Float32), description="embedding of the title's texts; empty without text"),
    ],
    source=title_semantics_log,
)

recommender = FeatureService(
    name="recommender",
    description="all features for recommending a title to a user",
    features=[user_activity, title_semantics],
)

VIEW_SCHEMAS: Final[dict[str, pa.Schema]] = {
    user_activity.name: USER_ACTIVITY_SCHEMA,
    title_semantics.name: TITLE_SEMANTICS_SCHEMA,
}
FEAST_OBJECTS: Final[list[Any]] = [
    user,
    title,
    user_activity_log,
    title_semantics_log,
    user_activity,
    title_semantics,
    recommender,
]
