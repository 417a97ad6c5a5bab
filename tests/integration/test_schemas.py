"""A schema keeps, within its version, what it promised: the needed fields, and what every other may hold."""

import json
from typing import Any, Final

import pytest

from streaming.topics import MODEL_VERSIONS, SCHEMA_VERSIONS, TITLE_LAUNCHES, USER_EVENTS
from tests.support.paths import ROOT

SCHEMAS: Final = ROOT / "docs" / "schemas"
# What version 1 promised, field by field: the types it may have; a needed one ends with "!". Another promise is another
# version, with a line of its own here: fields may be added to a version, and nothing else.
PROMISED: Final[dict[tuple[str, int], dict[str, dict[str, str]]]] = {
    (USER_EVENTS, 1): {
        "Event": {
            "user": "string!", "title": "string!", "ts": "integer!", "action": "string", "rating": "null number",
            "event_id": "null string",
        },
        "Forget": {"user": "string!", "forget": "boolean!"},
    },
    (TITLE_LAUNCHES, 1): {
        "Launch": {
            "title": "string!", "name": "string", "genres": "array", "overview": "string", "text": "object",
            "year": "integer null", "released": "integer null", "ts": "integer null", "withdrawn": "boolean",
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
def test_a_schema_keeps_what_its_version_promised(topic: str) -> None:
    number = SCHEMA_VERSIONS[topic]
    schema = json.loads((SCHEMAS / f"{topic}.json").read_text())
    assert schema["$id"] == f"urn:premiere:{topic}:{number}"
    for record, fields in PROMISED[topic, number].items():
        told = schema["$defs"][record]
        assert set(told["required"]) == {name for name, types in fields.items() if types.endswith("!")}
        found = {name: _types(told["properties"][name]) for name in fields}
        assert found == {name: types.rstrip("!") for name, types in fields.items()}
        assert told.get("additionalProperties") is not False  # unknown ones are passed over


def _types(field: dict[str, Any]) -> str:
    return " ".join(sorted(one["type"] for one in field.get("anyOf", [field])))
