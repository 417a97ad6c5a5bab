"""The demo's dataset is located before anything is downloaded, and dead-lettered events are counted once."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from infra.data.datasets import load
from infra.data.producer import ProduceError
from infra.data.tables import DataError
from infra.demo.command import Options, dead_events, demo, locate_or_download
from infra.demo.screen import Screen
from infra.settings import Settings
from streaming.topics import TITLE_LAUNCHES
from tests.support.dead_letters import message, write_letters
from tests.support.tables import write_table


def write_data(folder: Path, user: str) -> tuple[Path, Path]:
    """The files of a dataset with one event."""
    events = write_table(folder, "events.csv", {"user": [user], "item": [1], "ts": [1_700_000_000]})
    return events, write_table(folder, "titles.csv", {"item": [1], "title": ["One"]})


def test_data_setting_is_used_without_a_download(tmp_path: Path) -> None:
    write_data(tmp_path, "a")
    lines: list[str] = []
    found = locate_or_download(Settings(data=tmp_path, data_dir=tmp_path / "own"), None, None, (), 5, lines.append)
    assert (found.name, found.simulated, lines) == (tmp_path.name, False, [])


def test_given_files_are_used_before_the_data_setting(tmp_path: Path) -> None:
    write_data(tmp_path / "set", "by setting")
    events, titles = write_data(tmp_path / "given", "by option")
    settings, lines = Settings(data=tmp_path / "set", data_dir=tmp_path / "own"), list[str]()
    assert locate_or_download(settings, events, titles, (), 5, lines.append).users == ["by option"]
    with pytest.raises(DataError, match="give --events too"):
        locate_or_download(settings, None, titles, (), 5, lines.append)
    assert lines == []


def test_earlier_download_is_used_again(tmp_path: Path) -> None:
    write_data(tmp_path / "data" / "ml-100k", "downloaded")
    lines: list[str] = []
    found = locate_or_download(Settings(data=None, data_dir=tmp_path), None, None, (), 5, lines.append)
    assert (found.name, found.users, lines) == ("ml-100k", ["downloaded"], [])


def test_dead_lettered_events_are_counted_once(new_kafka: dict[str, str]) -> None:
    assert dead_events(new_kafka) == 0
    write_letters(new_kafka, (message(0), "unknown action: x"), (message(1), "unknown action: x"))
    write_letters(new_kafka, (message(1), "unknown action: x"))  # a restarted flow wrote it again
    write_letters(new_kafka, (message(5, b"{", TITLE_LAUNCHES), "not JSON: x"))  # no event
    assert dead_events(new_kafka) == 2


def test_events_later_than_now_are_refused_before_anything_starts(tmp_path: Path) -> None:
    path = write_table(tmp_path, "e.csv", {"user": [1], "item": [1], "ts": [2_500_000_000]})
    console = Console(file=io.StringIO())
    with pytest.raises(ProduceError, match="1 of 1 events are later than now"):
        demo(Settings(data_dir=tmp_path), load(path), Options(), Screen(console))
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
