"""Within a schema version, required fields and field types do not change."""

import json
from typing import Any, Final

import pytest

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
            "year": "integer null", "released": "integer null", "ts": "integer null",
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
