"""Rows as the protos that Feast's provider takes, checked.

The provider checks nothing: a wrong type or an endless history would only be noticed by whoever reads it.
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

from features.definitions import RECENT, ROWS, title_semantics, user_activity

Row = Mapping[str, Any]
ProtoRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


class RowError(ValueError):
    """A row does not fit its feature view."""


def to_proto(view: FeatureView, row: Row) -> ProtoRow:
    """A row as the provider takes it. Raises RowError where a column is missing or of another type or length."""
    key = ROWS[view.name].names[0]
    try:
        values = {name: make(row[name]) for name, make in _MAKE[view.name].items()}
        entity = EntityKey(join_keys=[key], entity_values=[_text(row[key])])
        stamp: datetime = row["event_timestamp"]
        if stamp.tzinfo is None:
            raise TypeError("event_timestamp has no time zone")
    except (KeyError, TypeError, ValueError) as error:
        raise RowError(f"{view.name}: {error!r} in the row of {row.get(key)!r}") from error
    if any(len(row[name]) > RECENT for name in values if name.startswith("recent_")):
        raise RowError(f"{view.name}: a history of more than {RECENT} in the row of {row[key]!r}")
    return entity, values, stamp, row.get("created")


def _text(value: str) -> Value:
    return Value(string_val=value)


def _number(value: int | None) -> Value:
    return Value() if value is None else Value(int64_val=value)


def _truth(value: bool) -> Value:
    return Value(bool_val=value)


def _texts(values: Sequence[str]) -> Value:
    return Value(string_list_val=StringList(val=values))


def _numbers(values: Sequence[int]) -> Value:
    return Value(int64_list_val=Int64List(val=values))


def _vector(values: Sequence[float]) -> Value:
    if not all(map(isfinite, values)):
        raise ValueError("a vector with a value that is not finite")
    return Value(float_list_val=FloatList(val=values))


_MAKERS: Final[dict[Any, Callable[[Any], Value]]] = {
    String: _text,
    Int64: _number,
    Bool: _truth,
    Array(String): _texts,
    Array(Int64): _numbers,
    Array(Float32): _vector,
}
_MAKE: Final = {
    view.name: {field.name: _MAKERS[field.dtype] for field in view.features}
    for view in (user_activity, title_semantics)
}
