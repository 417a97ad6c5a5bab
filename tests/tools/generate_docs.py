"""The parts of the documentation that are made from the code, and the command that makes them anew.

    .venv/bin/python -m tests.tools.generate_docs

A part stands between two comments, `<!-- made: NAME -->` and `<!-- end -->`; the rest of the page is written by people.
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
from features.definitions import OBJECTS, ROWS
from infra.cli.main import app
from infra.settings import settings_table
from model.actions import ACTIONS
from streaming.records import Event, Forget, Launch, Version
from streaming.topics import MODEL_VERSIONS, SCHEMA_VERSIONS, TITLE_LAUNCHES, USER_EVENTS, topics
from tests.support.paths import ROOT

PAGES: Final = ("README.md", "docs/contracts.md", "docs/operations.md", "docs/settings.md")
_PART: Final = re.compile(r"(<!-- made: (\w+) -->\n)(.*?)(<!-- end -->)", re.S)
SCHEMAS: Final[dict[str, tuple[Any, ...]]] = {  # topic: what a record of it may be
    USER_EVENTS: (Event, Forget),
    TITLE_LAUNCHES: (Launch,),
    MODEL_VERSIONS: (Version,),
}


def _table(*rows: tuple[object, ...]) -> str:
    lines = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def actions() -> str:
    """What an action means."""
    rows = [(f"`{name}`", m.code, f"{m.weight:g}", f"{m.liking:g}") for name, m in ACTIONS.items()]
    return _table(("action", "code", "weight as a target", "sign of taste"), *rows)


def topic_table() -> str:
    """The topics as they are created."""
    rows = [(f"`{t.name}`", t.partitions, _kept(t.config), _rest(t.config)) for t in topics()]
    return _table(("topic", "partitions", "kept", "other settings"), *rows)


def _kept(config: dict[str, str]) -> str:
    if "retention.ms" not in config:
        return "newest record of each key"
    days = int(config["retention.ms"]) // 86_400_000
    return "for ever" if days < 0 else f"{days} days"


def _rest(config: dict[str, str]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in config.items() if name != "retention.ms")


def commands() -> str:
    """The command line, by the first line of each command's help."""
    found = [command.callback for command in app.registered_commands if command.callback is not None]
    names = [callback.__name__.replace("_", "-") for callback in found]
    helps = [(callback.__doc__ or "").strip().splitlines()[0] for callback in found]
    return _table(("command", "what it does"), *((f"`premiere {n}`", h) for n, h in zip(names, helps, strict=True)))


def metrics() -> str:
    """What the flows count, by their declarations."""
    for module in pkgutil.walk_packages(streaming.__path__, "streaming."):
        importlib.import_module(module.name)
    importlib.import_module("infra.monitor.lag_exporter")
    families = sorted((f for f in REGISTRY.collect() if f.name.startswith("premiere_")), key=lambda f: f.name)
    rows = [(f"`{f.name}{'_total' if f.type == 'counter' else ''}`", f.type, f.documentation) for f in families]
    return _table(("metric", "type", "meaning"), *rows)


def views() -> str:
    """The feature views: each field, its type, and where it can be read."""
    rows = []
    for view in (thing for thing in OBJECTS if hasattr(thing, "ttl")):
        online = {field.name: field for field in view.schema}
        for column in ROWS[view.name]:
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
}


def made(text: str) -> str:
    """A page with its parts made anew. Raises KeyError for a part that nobody makes."""
    return _PART.sub(lambda part: part[1] + PARTS[part[2]]() + part[4], text)


def schema(name: str) -> str:
    """The JSON Schema of a topic's records, with its version."""
    alternatives, parts = msgspec.json.schema_components(SCHEMAS[name], ref_template="#/$defs/{name}")
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:premiere:{name}:{SCHEMA_VERSIONS[name]}",
        "title": f"{name}, version {SCHEMA_VERSIONS[name]}",
        **(alternatives[0] if len(alternatives) == 1 else {"anyOf": list(alternatives)}),
        "$defs": {part: _plain(told) for part, told in parts.items()},
    }
    return json.dumps(found, indent=2) + "\n"


def _plain(part: dict[str, Any]) -> dict[str, Any]:
    """Without the line breaks of the docstring that it comes from."""
    return {**part, "description": " ".join(part["description"].split())} if "description" in part else part


def pages() -> Iterator[tuple[Path, str]]:
    """Each file that is made in part or whole, as it should be."""
    for name in PAGES:
        yield ROOT / name, made((ROOT / name).read_text())
    for name in SCHEMAS:
        yield ROOT / "docs" / "schemas" / f"{name}.json", schema(name)


if __name__ == "__main__":
    for path, text in pages():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
