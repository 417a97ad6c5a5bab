"""Generate parts of the documentation from the code.

    .venv/bin/python -m tests.tools.generate_docs

A generated part is between the comments `<!-- generated: NAME -->` and `<!-- end -->`; people write the rest of a page.
"""

import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from prometheus_client import REGISTRY

import streaming
from features.definitions import FEAST_OBJECTS, VIEW_SCHEMAS
from infra.cli.main import app
from infra.settings_table import model_settings_table, settings_table
from model.actions import ACTIONS
from model.signals.table import signal_infos
from streaming.flows.titles import VALID_RELEASE_MS, VALID_YEARS
from streaming.records import (
    MAX_GENRE_CHARS,
    MAX_GENRES,
    MIN_TIME_MS,
    ErasureRequest,
    Event,
    Launch,
    TitleWithdrawal,
    Version,
)
from streaming.topics import (
    ERASURE_REQUESTS,
    MODEL_VERSIONS,
    SCHEMA_VERSIONS,
    TITLE_LAUNCHES,
    TITLE_WITHDRAWALS,
    USER_EVENTS,
    topics,
)
from tests.support.paths import ROOT

PAGES: Final = ("README.md", "docs/contracts.md", "docs/operations.md", "docs/settings.md", "docs/signals.md")
_PART: Final = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.S)
TOPIC_RECORDS: Final[dict[str, tuple[Any, ...]]] = {  # topic -> the types of its records
    USER_EVENTS: (Event,),
    ERASURE_REQUESTS: (ErasureRequest,),
    TITLE_LAUNCHES: (Launch,),
    TITLE_WITHDRAWALS: (TitleWithdrawal,),
    MODEL_VERSIONS: (Version,),
}


def _table(*rows: tuple[object, ...]) -> str:
    lines = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def actions() -> str:
    """The actions and their meaning."""
    rows = [(f"`{name}`", m.code, f"{m.weight:g}", f"{m.liking:g}") for name, m in ACTIONS.items()]
    return _table(("action", "code", "weight as a target", "preference"), *rows)


def topic_table() -> str:
    """The topics and their configuration."""
    rows = [(f"`{t.name}`", t.partitions, _retention(t.config), _other_settings(t.config)) for t in topics()]
    return _table(("topic", "partitions", "retention", "other settings"), *rows)


def _signals() -> str:
    rows = [(f"`{info.name}`", info.stage, info.group, info.meaning) for info in signal_infos()]
    return _table(("signal", "computed for", "group", "meaning"), *rows)


def _retention(config: dict[str, str]) -> str:
    if "retention.ms" not in config:
        return "newest record of each key"
    days = f"{int(config['retention.ms']) // 86_400_000} days"
    size = int(config.get("retention.bytes", 0))
    return f"{days}, at most {size >> 20:,} MiB per partition" if size else days


def _other_settings(config: dict[str, str]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in config.items() if not name.startswith("retention."))


def commands() -> str:
    """The commands, with the first line of their help."""
    found = [command.callback for command in app.registered_commands if command.callback is not None]
    names = [callback.__name__.replace("_", "-") for callback in found]
    helps = [(callback.__doc__ or "").strip().splitlines()[0] for callback in found]
    return _table(("command", "what it does"), *((f"`premiere {n}`", h) for n, h in zip(names, helps, strict=True)))


def metrics() -> str:
    """The metrics, as they are declared."""
    for module in pkgutil.walk_packages(streaming.__path__, "streaming."):
        importlib.import_module(module.name)
    for name in ("infra.monitor.lag_exporter", "infra.run.log_retention", "infra.run.starts"):
        importlib.import_module(name)
    families = sorted((f for f in REGISTRY.collect() if f.name.startswith("premiere_")), key=lambda f: f.name)
    rows = [(f"`{f.name}{'_total' if f.type == 'counter' else ''}`", f.type, f.documentation) for f in families]
    return _table(("metric", "type", "meaning"), *rows)


def views() -> str:
    """The feature views: each field, its type, and the stores that have it."""
    rows = []
    for view in (definition for definition in FEAST_OBJECTS if hasattr(definition, "ttl")):
        online = {field.name: field for field in view.schema}
        for column in VIEW_SCHEMAS[view.name]:
            field = online.get(column.name)
            where = "key" if column.name in view.join_keys else "both" if field else "offline"
            rows.append((f"`{view.name}`", f"`{column.name}`", column.type, where, (field and field.description) or ""))
    return _table(("view", "field", "type", "where", "meaning"), *rows)


PARTS: Final[dict[str, Callable[[], str]]] = {
    "actions": actions,
    "topics": topic_table,
    "commands": commands,
    "metrics": metrics,
    "views": views,
    "settings": settings_table,
    "model_settings": model_settings_table,
    "signals": _signals,
}


def generate(text: str) -> str:
    """A page with its generated parts. Raises KeyError for an unknown part."""
    return _PART.sub(lambda part: part[1] + PARTS[part[2]]() + part[4], text)


def schema(name: str) -> str:
    """The JSON Schema of a topic's records, with its version."""
    alternatives, parts = msgspec.json.schema_components(TOPIC_RECORDS[name], ref_template="#/$defs/{name}")
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:premiere:{name}:{SCHEMA_VERSIONS[name]}",
        "title": f"{name}, version {SCHEMA_VERSIONS[name]}",
        **(alternatives[0] if len(alternatives) == 1 else {"anyOf": list(alternatives)}),
        "$defs": {part: _bounded(part, _single_line(definition)) for part, definition in parts.items()},
    }
    return json.dumps(found, indent=2) + "\n"


def _bounded(part: str, definition: dict[str, Any]) -> dict[str, Any]:
    """The definition with what the flow checks after decoding, so that a producer's validator refuses the same."""
    fields = definition.get("properties", {})
    if part == "Event":
        fields["ts"]["minimum"] = MIN_TIME_MS
        known = {"properties": {"action": {"enum": list(ACTIONS)}}}
        rated = {"properties": {"rating": {"type": "number"}}, "required": ["rating"]}  # it determines the action
        return definition | {"anyOf": [known, rated], "not": _flag("erase")}
    if part == "Launch":
        fields["genres"] |= {"maxItems": MAX_GENRES, "items": {"type": "string", "maxLength": MAX_GENRE_CHARS}}
        for name, values in (("year", VALID_YEARS), ("released", VALID_RELEASE_MS)):
            _integer(fields[name]).update(minimum=values.start, maximum=values.stop - 1)
        _integer(fields["ts"])["minimum"] = MIN_TIME_MS
        return definition | {"not": _flag("withdrawn")}
    return definition


def _integer(field: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in field["anyOf"] if one["type"] == "integer")
    return found


def _flag(name: str) -> dict[str, Any]:
    return {"properties": {name: {"const": True}}, "required": [name]}


def _single_line(part: dict[str, Any]) -> dict[str, Any]:
    """The definition without line breaks in its description, which is a docstring."""
    return {**part, "description": " ".join(part["description"].split())} if "description" in part else part


def pages() -> Iterator[tuple[Path, str]]:
    """Each file that is generated in part or completely, with its text."""
    for name in PAGES:
        yield ROOT / name, generate((ROOT / name).read_text())
    for name in TOPIC_RECORDS:
        yield ROOT / "docs" / "schemas" / f"{name}.json", schema(name)


if __name__ == "__main__":
    for path, text in pages():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
