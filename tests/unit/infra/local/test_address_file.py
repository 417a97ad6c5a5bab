"""The addresses of a running `premiere up`, as other commands find them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.errors import SettingsError
from infra.local import data_lock
from infra.local.address_file import ADDRESS_FILE, local_services, with_local_services, write_addresses
from infra.settings import Settings

SERVED = {"pid": 1, "bootstrap_servers": "up:1", "redis_url": "redis://up:2", "metrics_port": 9500}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """The file of a `premiere up` that runs on the folder."""
    with data_lock.hold_up(tmp_path):  # type: ignore[union-attr]
        path = tmp_path / ADDRESS_FILE
        path.write_text(json.dumps(SERVED))
        yield path


def test_running_local_services_are_found(tmp_path: Path, running: Path) -> None:
    settings = Settings(data_dir=tmp_path, bootstrap_servers="", redis_url="")
    assert with_local_services(settings).bootstrap_servers == "up:1"
    assert with_local_services(settings).metrics_port == 9500
    assert with_local_services(settings.model_copy(update={"redis_url": "redis://mine"})).redis_url == "redis://mine"
    elsewhere = settings.model_copy(update={"bootstrap_servers": "other:1"})
    assert with_local_services(elsewhere) == elsewhere


@pytest.mark.parametrize("content", [json.dumps(SERVED), "", '{"pid": 1, "boots'])
def test_file_that_a_killed_process_left_is_ignored(tmp_path: Path, content: str) -> None:
    (tmp_path / ADDRESS_FILE).write_text(content)  # its process id 1 exists, and is another user's
    assert local_services(tmp_path) == {}


def test_addresses_are_written_while_it_runs(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, bootstrap_servers="up:1", redis_url="redis://up:2")
    with write_addresses(settings):
        assert local_services(tmp_path)["bootstrap_servers"] == "up:1"
        with pytest.raises(SettingsError, match="already running"), write_addresses(settings):
            pass
    assert local_services(tmp_path) == {}


def test_file_that_cannot_be_used_is_named(tmp_path: Path, running: Path) -> None:
    running.write_text(json.dumps(SERVED | {"format": 99}))
    with pytest.raises(SettingsError, match=r"another release .*format 99"):
        local_services(tmp_path)
    for content in ('{"pid": 1', "7", '["up:1"]'):
        running.write_text(content)
        with pytest.raises(SettingsError, match=r"running\.json is damaged"):
            local_services(tmp_path)
