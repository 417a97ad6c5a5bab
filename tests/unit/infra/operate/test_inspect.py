"""A user's list is printed with title names, from a real Redis and feature store; missing services are reported."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from features.store import open_store, write_title_semantics, write_user_activity
from infra.local.embedded import start_redis
from infra.operate.inspect import (
    InspectError,
    open_redis,
    print_recommendations,
    print_titles,
    recent_titles,
    send_event,
    slug,
    title_names,
)
from infra.settings import Settings
from streaming.records import Event
from streaming.stores.redis_lists import Prediction, RedisSink
from tests.support.feature_rows import title_row, user_row

TITLES: Final = [
    title_row("t1", name="Alien", year=1979),
    title_row("t2", name="Blade Runner 2049", year=2049),
    title_row("t3", name="", year=2001),
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A Redis with the lists of one user and of unknown users, and the features of one user and three titles."""
    folder = tmp_path_factory.mktemp("inspect")
    with start_redis(folder / "redis") as url:
        settings = Settings(data_dir=folder, bootstrap_servers="", redis_url=url)
        store = open_store(url, folder / "feast")
        write_title_semantics(store, TITLES)
        write_user_activity(store, [user_row("ann", 0, 2, ["t3", "t1"])])
        lists = {"ann": {0: ["t1", "t2"], 3: ["t2", "t3"]}, None: {0: ["t3", "unknown title"]}}
        writer = RedisSink(url).build_part("lists", "0", None)
        writer.write_batch([[Prediction(user, each, 5, (7, 7, 5, 0), 12, 0) for user, each in lists.items()]])
        yield settings


def recommendations(settings: Settings, user: str, events_since: int = 0) -> dict[str, Any]:
    lines: list[str] = []
    print_recommendations(settings, user, events_since, True, lines.append)
    found: dict[str, Any] = json.loads("\n".join(lines))
    return found


def test_list_has_title_names_and_the_version(settings: Settings) -> None:
    found = recommendations(settings, "ann")
    assert (found["known"], found["version"], found["events"]) == (True, 5, 12)
    assert found["titles"] == [
        {"title": "t1", "name": "Alien (1979)"}, {"title": "t2", "name": "Blade Runner 2049"},
    ]  # fmt: skip
    assert [entry["title"] for entry in recommendations(settings, "ann", events_since=4)["titles"]] == ["t2", "t3"]


def test_unknown_user_gets_the_default_list(settings: Settings) -> None:
    found = recommendations(settings, "nobody")
    assert found["known"] is False
    assert found["titles"] == [
        {"title": "t3", "name": "t3"}, {"title": "unknown title", "name": "unknown title"},
    ]  # fmt: skip


def test_list_is_printed_as_text(settings: Settings) -> None:
    lines: list[str] = []
    print_recommendations(settings, "ann", 0, False, lines.append)
    assert lines[0].startswith("ann: 12 known events, version 5, written ")
    assert [line.split() for line in lines[1:]] == [
        ["1", "Alien", "(1979)", "[t1]"],
        ["2", "Blade", "Runner", "2049", "[t2]"],
    ]


def test_names_and_recent_titles_come_from_the_feature_store(settings: Settings) -> None:
    assert title_names(settings, []) == {}
    assert title_names(settings, ["t1", "t3", "t1"]) == {"t1": "Alien (1979)", "t3": "t3"}
    assert recent_titles(settings, ["ann", "nobody"]) == {"ann": ["t3", "Alien (1979)"], "nobody": []}


def test_redis_without_lists_or_without_answer_is_reported(tmp_path: Path) -> None:
    with start_redis(tmp_path / "redis") as url:
        empty = Settings(data_dir=tmp_path, bootstrap_servers="", redis_url=url)
        with pytest.raises(InspectError, match="no lists in Redis yet"), open_redis(empty):
            pass
    absent = Settings(data_dir=tmp_path, bootstrap_servers="", redis_url="redis://127.0.0.1:1/0")
    with pytest.raises(InspectError, match="Redis does not answer"), open_redis(absent):
        pass


def test_unknown_action_is_refused_before_anything_is_sent(settings: Settings) -> None:
    with pytest.raises(InspectError, match="There is no action stare"):
        send_event(settings, Event(user="ann", title="t1", ts=0, action="stare"), 1, print)


def test_slug_derives_id_from_name() -> None:
    assert [slug(name) for name in ("Toy Story 4", "  Amélie! ", "!!!")] == [
        "toy-story-4",
        "amélie",
        "title-104394872",
    ]


def test_names_cannot_control_the_terminal() -> None:
    lines: list[str] = []
    names = {"t\n1": "Red \x1b[31m\x9b2J\u202e name"}
    print_titles(["t\n1"], names, lines.append)
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert "Red" in lines[0]
