"""The addresses of a running `premiere up`, as other commands find them."""

import json
import os
from pathlib import Path

import pytest

from infra.errors import SettingsError
from infra.local.address_file import ADDRESS_FILE, with_local_services
from infra.settings import Settings


def test_running_local_services_are_found(tmp_path: Path) -> None:
    served = {"pid": os.getpid(), "bootstrap_servers": "up:1", "redis_url": "redis://up:2", "metrics_port": 9500}
    settings = Settings(data_dir=tmp_path, bootstrap_servers="", redis_url="")
    (tmp_path / ADDRESS_FILE).write_text(json.dumps(served))
    assert with_local_services(settings).bootstrap_servers == "up:1"
    assert with_local_services(settings).metrics_port == 9500
    assert with_local_services(settings.model_copy(update={"redis_url": "redis://mine"})).redis_url == "redis://mine"
    elsewhere = settings.model_copy(update={"bootstrap_servers": "other:1"})
    assert with_local_services(elsewhere) == elsewhere
    (tmp_path / ADDRESS_FILE).write_text(json.dumps(served | {"pid": 2**22 + 1}))  # above any process id
    assert with_local_services(settings) == settings
    (tmp_path / ADDRESS_FILE).write_text(json.dumps(served | {"format": 99}))
    with pytest.raises(SettingsError, match=r"another release .*format 99"):
        with_local_services(settings)
