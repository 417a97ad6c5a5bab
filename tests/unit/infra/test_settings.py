"""Where a setting comes from, what is refused, and that no secret is ever shown."""

import json
import os
from pathlib import Path

import pytest

from infra.errors import SettingsError
from infra.settings import RUNNING, Settings, connected, load, settings_table, shown


@pytest.fixture(autouse=True)
def empty_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting in the environment, no file in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("PREMIERE_") or name in ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_HOME", "REDIS_URL"):
            monkeypatch.delenv(name)


def test_the_environment_wins_over_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "premiere.toml").write_text('threads = 2\nhistory = 50\nlist_size = 10\nbootstrap_servers = "a:1"\n')
    (tmp_path / ".env").write_text("PREMIERE_THREADS=3\nPREMIERE_HISTORY=60\nGRAFANA_PASSWORD=x\n")
    monkeypatch.setenv("PREMIERE_THREADS", "4")
    settings = load()
    assert (settings.threads, settings.history, settings.list_size) == (4, 60, 10)
    assert settings.bootstrap_servers == "a:1"
    assert load(threads=5).threads == 5


def test_our_own_name_wins_over_the_name_that_others_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "theirs:1")
    assert load().bootstrap_servers == "theirs:1"
    monkeypatch.setenv("PREMIERE_BOOTSTRAP_SERVERS", "ours:1")
    assert load().bootstrap_servers == "ours:1"


def test_an_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_HOME", "")
    assert load().kafka_home is None


def test_a_child_gets_the_same_settings_through_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = load(bootstrap_servers="k:1", horizons=(0, 7), kafka_sasl_password="p", data_dir="/tmp/x", seed=3)
    for name, value in parent.environment().items():
        monkeypatch.setenv(name, value)
    assert load() == parent


def test_security_settings_reach_the_kafka_client() -> None:
    settings = load(
        bootstrap_servers="k:1",
        kafka_security_protocol="sasl_ssl",
        kafka_sasl_mechanism="PLAIN",
        kafka_sasl_username="u",
        kafka_sasl_password="p",
        kafka_ssl_ca_location="/ca.pem",
        kafka_home="/opt/kafka",
    )
    assert settings.kafka() == {
        "bootstrap.servers": "k:1",
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "u",
        "sasl.password": "p",
        "ssl.ca.location": "/ca.pem",
    }


def test_no_secret_is_shown() -> None:
    settings = load(redis_url="redis://me:hush@h:1/0", kafka_sasl_password="hush", kafka_ssl_key_password="hush")
    printed = f"{settings!r} {settings} {shown(settings)} {settings.model_dump()['kafka_sasl_password']}"
    assert "hush" not in printed
    assert shown(settings)["redis_url"] == "redis://me:**********@h:1/0"


@pytest.mark.parametrize("horizons", ["3,10", "0,5,5", "0,9,4", "", "0,x"])
def test_horizons_that_do_not_rise_from_zero_are_refused(horizons: str) -> None:
    with pytest.raises(SettingsError, match="Setting horizons cannot be used"):
        load(horizons=horizons)


def test_a_misspelt_setting_is_refused_with_the_right_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREMIERE_HISTORI", "3")
    with pytest.raises(SettingsError, match="did you mean PREMIERE_HISTORY"):
        load()


def test_a_misspelt_setting_in_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "premiere.toml").write_text("histori = 3\n")
    with pytest.raises(SettingsError, match="did you mean history"):
        load()


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "premiere.toml").write_text("threads 2")
    with pytest.raises(SettingsError, match=r"premiere\.toml cannot be read"):
        load()


def test_without_addresses_a_client_says_what_to_do() -> None:
    with pytest.raises(SettingsError, match="premiere up"):
        load().kafka()
    with pytest.raises(SettingsError, match="premiere up"):
        load().redis()


def test_a_running_stack_is_found_and_a_dead_one_is_not(tmp_path: Path) -> None:
    served = {"pid": os.getpid(), "bootstrap_servers": "up:1", "redis_url": "redis://up:2", "metrics_port": 9500}
    settings = load(data_dir=tmp_path)
    (tmp_path / RUNNING).write_text(json.dumps(served))
    assert connected(settings).bootstrap_servers == "up:1"
    assert connected(settings).metrics_port == 9500
    assert connected(load(data_dir=tmp_path, redis_url="redis://mine")).redis_url == "redis://mine"
    elsewhere = load(data_dir=tmp_path, bootstrap_servers="other:1")
    assert connected(elsewhere) == elsewhere
    (tmp_path / RUNNING).write_text(json.dumps(served | {"pid": 2**22 + 1}))  # above any process id
    assert connected(settings) == settings
    (tmp_path / RUNNING).write_text(json.dumps(served | {"format": 99}))
    with pytest.raises(SettingsError, match=r"is another release \(running\.json has format 99\): use that one"):
        connected(settings)


def test_every_setting_has_a_row_and_a_meaning() -> None:
    rows = settings_table().splitlines()[2:]
    assert len(rows) == len(Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())
