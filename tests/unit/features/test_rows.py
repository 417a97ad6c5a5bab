"""Rows become the protos that Feast stores, and invalid rows are rejected."""

from datetime import datetime
from typing import Any

import pytest

import features.feast_import  # noqa: F401 - Feast comes sooner without torch

# isort: split

from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import FloatList, Int64List, StringList, Value

from features.definitions import title_semantics, user_activity
from features.limits import RECENT_EVENTS
from features.rows import RowError, to_proto
from tests.support.feature_rows import NOON, title_row, user_row


def test_user_row_becomes_key_values_and_times() -> None:
    row = user_row("ann", 0, 2, ["b", "a"], created=5)
    entity, values, timestamp, created = to_proto(user_activity, row)
    assert entity == EntityKey(join_keys=["user_id"], entity_values=[Value(string_val="ann")])
    ms = int(NOON.timestamp() * 1000)
    assert values == {
        "event_count": Value(int64_val=2),
        "last_title": Value(string_val="b"),
        "last_action": Value(string_val="play"),
        "last_event_ms": Value(int64_val=ms),
        "recent_titles": Value(string_list_val=StringList(val=["b", "a"])),
        "recent_actions": Value(int64_list_val=Int64List(val=[3, 3])),
        "recent_ms": Value(int64_list_val=Int64List(val=[ms, ms])),
    }
    assert (timestamp, created) == (row["event_timestamp"], row["created"])


def test_title_row_without_year_has_an_empty_value() -> None:
    values = to_proto(title_semantics, title_row("t", year=None, withdrawn=True))[1]
    assert values["year"] == Value()
    assert values["withdrawn"] == Value(bool_val=True)
    assert values["semantic"] == Value(float_list_val=FloatList(val=[0.25, -0.5]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"event_count": "three"},
        {"event_count": 2**63},
        {"last_title": 7},
        {"recent_titles": ["a", 1]},
        {"recent_ms": [1.5]},
        {"recent_actions": [3] * (RECENT_EVENTS + 1)},
        {"event_timestamp": datetime(2016, 5, 1)},  # no time zone
    ],
)
def test_invalid_row_is_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(RowError, match="user_activity"):
        to_proto(user_activity, user_row("ann", 0, 1, ["a"]) | wrong)


def test_missing_column_and_infinite_vector_are_rejected() -> None:
    row = user_row("ann", 0, 1, ["a"])
    with pytest.raises(RowError, match="last_action"):
        to_proto(user_activity, {key: value for key, value in row.items() if key != "last_action"})
    with pytest.raises(RowError, match="finite"):
        to_proto(title_semantics, title_row("t", semantic=[float("nan")]))
