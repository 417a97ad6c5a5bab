"""Converts rows into the protos that Feast's provider takes, and checks them.

The provider itself checks nothing: without this check, a wrong type or an unbounded history would only be noticed by a
program that reads it.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from math import isfinite
from typing import Any, Final

import features.feast_import  # noqa: F401

# isort: split

from feast import FeatureView
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import FloatList, Int64List, StringList, Value
from feast.types import Array, Bool, Float32, Int64, String

from features.definitions import VIEW_SCHEMAS, title_semantics, user_activity
from features.limits import RECENT_EVENTS

Row = Mapping[str, Any]
ProtoRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]  # key, features, event time, creation time


class RowError(ValueError):
    """A row does not fit its feature view."""


def to_proto(view: FeatureView, row: Row) -> ProtoRow:
    """A row as the provider takes it. Raises RowError for a missing column, a wrong type or too many values."""
    key = VIEW_SCHEMAS[view.name].names[0]
    try:
        values = {name: convert(row[name]) for name, convert in _CONVERTERS[view.name].items()}
        entity = EntityKey(join_keys=[key], entity_values=[_string(row[key])])
        timestamp: datetime = row["event_timestamp"]
        if timestamp.tzinfo is None:
            raise TypeError("event_timestamp has no time zone")
    except (KeyError, TypeError, ValueError) as error:
        raise RowError(f"{view.name}: {error!r} in the row of {row.get(key)!r}") from error
    if any(len(row[name]) > RECENT_EVENTS for name in values if name.startswith("recent_")):
        raise RowError(f"{view.name}: more than {RECENT_EVENTS} recent events in the row of {row[key]!r}")
    return entity, values, timestamp, row.get("created")


def _string(value: str) -> Value:
    return Value(string_val=value)


def _int(value: int | None) -> Value:
    return Value() if value is None else Value(int64_val=value)


def _bool(value: bool) -> Value:
    return Value(bool_val=value)


def _strings(values: Sequence[str]) -> Value:
    return Value(string_list_val=StringList(val=values))


def _ints(values: Sequence[int]) -> Value:
    return Value(int64_list_val=Int64List(val=values))


def _floats(values: Sequence[float]) -> Value:
    if not all(map(isfinite, values)):
        raise ValueError("a vector with a value that is not finite")
    return Value(float_list_val=FloatList(val=values))


_CONVERTER_OF_TYPE: Final[dict[Any, Callable[[Any], Value]]] = {
    String: _string,
    Int64: _int,
    Bool: _bool,
    Array(String): _strings,
    Array(Int64): _ints,
    Array(Float32): _floats,
}
_CONVERTERS: Final = {  # view -> column -> converter
    view.name: {field.name: _CONVERTER_OF_TYPE[field.dtype] for field in view.features}
    for view in (user_activity, title_semantics)
}
