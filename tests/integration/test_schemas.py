"""Within a schema version, required fields and field types do not change."""

import json
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from streaming.flows.features import parse_events
from streaming.flows.titles import parse_launches
from streaming.kafka.source import Message
from streaming.records import MIN_TIME_MS
from streaming.topics import (
    ERASURE_REQUESTS,
    MODEL_VERSIONS,
    SCHEMA_VERSIONS,
    TITLE_LAUNCHES,
    TITLE_WITHDRAWALS,
    USER_EVENTS,
)
from tests.support.paths import ROOT

SCHEMAS: Final = ROOT / "docs" / "schemas"
# The types of each field by schema version; a required field ends with "!". A version may only gain optional fields;
# every other change is a new version with its own entry here.
CONTRACT: Final[dict[tuple[str, int], dict[str, dict[str, str]]]] = {
    (USER_EVENTS, 2): {
        "Event": {
            "user": "string!", "title": "string!", "ts": "integer!", "action": "string", "rating": "null number",
            "event_id": "null string",
        },
    },
    (ERASURE_REQUESTS, 1): {"ErasureRequest": {"user": "string!"}},
    (TITLE_WITHDRAWALS, 1): {"TitleWithdrawal": {"title": "string!"}},
    (TITLE_LAUNCHES, 2): {
        "Launch": {
            "title": "string!", "name": "string", "genres": "array", "overview": "string", "text": "object",
            "year": "integer null", "released": "integer null", "ts": "integer null", "vector": "array",
            "space": "string",
        }
    },
    (MODEL_VERSIONS, 1): {
        "Version": {
            "path": "string!", "step": "integer!", "position": "integer!", "learned": "integer!", "mrr": "null number!",
            "created": "integer!",
        }
    },
}  # fmt: skip


@pytest.mark.parametrize("topic", SCHEMA_VERSIONS)
def test_schema_keeps_the_fields_of_its_version(topic: str) -> None:
    number = SCHEMA_VERSIONS[topic]
    schema = json.loads((SCHEMAS / f"{topic}.json").read_text())
    assert schema["$id"] == f"urn:premiere:{topic}:{number}"
    for record, fields in CONTRACT[topic, number].items():
        definition = schema["$defs"][record]
        assert set(definition["required"]) == {name for name, types in fields.items() if types.endswith("!")}
        found = {name: _types(definition["properties"][name]) for name in fields}
        assert found == {name: types.rstrip("!") for name, types in fields.items()}
        assert definition.get("additionalProperties") is not False  # unknown fields are ignored


def _types(field: dict[str, Any]) -> str:
    return " ".join(sorted(one["type"] for one in field.get("anyOf", [field])))


NOW: Final = 1_790_000_000_000
EVENT: Final = {"user": "u", "title": "t", "ts": NOW}
VALID: Final[list[tuple[str, dict[str, Any]]]] = [
    (USER_EVENTS, EVENT),
    (USER_EVENTS, {**EVENT, "action": "impression", "rating": None, "more": [1]}),
    (USER_EVENTS, {**EVENT, "rating": 4.5, "erase": False}),
    (USER_EVENTS, {**EVENT, "rating": 4.5, "action": "watch"}),  # the rating determines the action
    (USER_EVENTS, {**EVENT, "ts": MIN_TIME_MS}),
    (TITLE_LAUNCHES, {"title": "t"}),
    (TITLE_LAUNCHES, {"title": "t", "genres": ["g"] * 100, "year": 1, "released": -1_000, "ts": NOW}),
    (TITLE_LAUNCHES, {"title": "t", "vector": [], "space": ""}),
]
INVALID: Final[list[tuple[str, dict[str, Any]]]] = [
    (USER_EVENTS, {**EVENT, "action": "watch"}),
    (USER_EVENTS, {**EVENT, "action": "PLAY"}),
    (USER_EVENTS, {**EVENT, "action": None}),
    (USER_EVENTS, {**EVENT, "ts": MIN_TIME_MS - 1}),
    (USER_EVENTS, {**EVENT, "ts": "now"}),
    (USER_EVENTS, {**EVENT, "rating": 5.1}),
    (USER_EVENTS, {**EVENT, "user": ""}),
    (USER_EVENTS, {**EVENT, "title": "x" * 257}),
    (USER_EVENTS, {**EVENT, "erase": True}),
    (USER_EVENTS, {"user": "u", "erase": True}),
    (USER_EVENTS, {"user": "u", "title": "t"}),
    (TITLE_LAUNCHES, {"title": "t", "genres": ["g"] * 101}),
    (TITLE_LAUNCHES, {"title": "t", "genres": ["g" * 257]}),
    (TITLE_LAUNCHES, {"title": "t", "year": 99_999}),
    (TITLE_LAUNCHES, {"title": "t", "year": -1}),
    (TITLE_LAUNCHES, {"title": "t", "year": 0}),
    (TITLE_LAUNCHES, {"title": "t", "released": 10**15}),
    (TITLE_LAUNCHES, {"title": "t", "ts": MIN_TIME_MS - 1}),
    (TITLE_LAUNCHES, {"title": "t", "withdrawn": True}),
    (TITLE_LAUNCHES, {"title": "t", "vector": [0.0] * 2049, "space": "images"}),
    (TITLE_LAUNCHES, {"title": "t", "vector": ["1"], "space": "images"}),
    (TITLE_LAUNCHES, {"name": "t"}),
]


@pytest.mark.parametrize(
    ("topic", "record", "is_valid"), [(*one, True) for one in VALID] + [(*one, False) for one in INVALID]
)
def test_schema_and_flow_refuse_the_same_records(topic: str, record: dict[str, Any], is_valid: bool) -> None:
    schema = json.loads((SCHEMAS / f"{topic}.json").read_text())
    key = str(record.get("user", record.get("title", ""))).encode()
    message = Message(topic, 0, 0, NOW, key, json.dumps(record).encode())
    parsed = parse_events([message]) if topic == USER_EVENTS else parse_launches([message])
    assert Draft202012Validator(schema).is_valid(record) == is_valid
    assert (parsed.letters == []) == is_valid, parsed.letters
