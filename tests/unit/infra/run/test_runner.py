"""Runs a flow: its recovery store, and the errors that end it."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from infra.errors import SettingsError
from infra.local import data_lock
from infra.local.embedded import start_kafka
from infra.local.services import start_services
from infra.local.supervisor import FLOWS
from infra.run.runner import FLOW_BUILDERS, _expected_error, recovery_store, run, titles, use_transactions
from infra.settings import Settings
from infra.topics import create_topics
from streaming.errors import StreamError
from streaming.topics import topics

RUN_EACH_FLOW = """
import sys
from infra.errors import PremiereError, SettingsError
from infra.local.supervisor import FLOWS
from infra.run.runner import run
from infra.settings import Settings
for flow in FLOWS:
    try:
        run(flow, Settings(data_dir=sys.argv[1], bootstrap_servers="", metrics_port=0))
    except PremiereError as error:
        print(flow, isinstance(error.__cause__, SettingsError), str(error).endswith(str(error.__cause__)))
"""


@pytest.mark.long
def test_recovery_store_belongs_to_one_log(broker: str, tmp_path: Path) -> None:
    stores = []
    for _ in range(2):
        with start_services(Settings(data_dir=tmp_path, bootstrap_servers="", metrics_port=0)) as settings:
            recovery_store(settings, "features")
            recovery_store(settings, "features")
            stores.append([path.name for path in (tmp_path / "recovery" / "features").iterdir()])
    assert [len(found) for found in stores] == [1, 1]


@pytest.mark.parametrize("kind", ["embedded", "apache"])
def test_transactions_are_used_unless_they_are_off_or_the_broker_is_embedded(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    home = request.getfixturevalue("kafka_home") if kind == "apache" else None
    with start_kafka(tmp_path, home, kind) as address:
        create_topics({"bootstrap.servers": address}, topics(1))
        used = [
            use_transactions(Settings(bootstrap_servers=address, data_dir=tmp_path, transactions=transactions))
            for transactions in (True, False)
        ]
    assert used == [kind == "apache", False]


def test_flow_does_not_start_during_reset(tmp_path: Path) -> None:
    with data_lock.hold_exclusive(tmp_path), pytest.raises(SettingsError, match="reset"):
        run("features", Settings(data_dir=tmp_path, bootstrap_servers="", metrics_port=0))


def test_flow_that_runs_on_the_folder_is_not_started_again(tmp_path: Path) -> None:
    held = data_lock.hold_flow(tmp_path, "features", 0)
    with pytest.raises(SettingsError, match="already running"):
        run("features", Settings(data_dir=tmp_path, bootstrap_servers="", metrics_port=0))
    assert held is not None
    held.close()


def test_expected_error_ends_flow_with_its_message(tmp_path: Path) -> None:
    """No broker is set. `run` installs signal handlers and holds a lock, so it runs in a process of its own."""
    child = subprocess.run([sys.executable, "-c", RUN_EACH_FLOW, str(tmp_path)], capture_output=True, text=True)
    assert child.stdout.splitlines() == [f"{flow} True True" for flow in FLOWS], child.stderr


def test_expected_error_is_found_behind_errors_of_the_engine() -> None:
    named, first, second = StreamError("the log is truncated"), RuntimeError("in a source"), ValueError("in an epoch")
    first.__cause__, second.__context__ = named, first
    assert _expected_error(second) is named
    named.__cause__ = SettingsError("a cause of the named error")
    assert _expected_error(second) is named
    assert _expected_error(ValueError("a bug")) is None


def test_missing_text_encoder_is_a_settings_error(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, bootstrap_servers="127.0.0.1:1", text_encoder=str(tmp_path / "missing"))
    with pytest.raises(SettingsError, match="text encoder"):
        titles(settings, threading.Event())


def test_every_flow_can_be_built() -> None:
    assert set(FLOW_BUILDERS) == set(FLOWS)


def test_files_of_a_command_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    env = {**os.environ, **Settings(data_dir=tmp_path / "data", bootstrap_servers="127.0.0.1:1").environment()}
    command = [sys.executable, "-P", "-m", "infra.cli.main", "run", "titles"]
    subprocess.run(command, env={**env, "PREMIERE_METRICS_PORT": "0"}, capture_output=True, umask=0o022)
    created = [tmp_path / "data", *(tmp_path / "data").iterdir()]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in created}
    assert len(modes) >= 3
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in zip(created, modes.values(), strict=True))
