"""Sources of settings, invalid values, and masked secrets."""

import json
import os
from pathlib import Path

import pytest

from infra.errors import SettingsError
from infra.settings import ADDRESS_FILE, Settings, load, masked_values, settings_table, with_local_services


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting in the environment, no file in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("PREMIERE_") or name in ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_HOME", "REDIS_URL"):
            monkeypatch.delenv(name)


def test_environment_overrides_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "premiere.toml").write_text(
        'threads = 2\nactivity_history = 50\nlist_size = 10\nbootstrap_servers = "a:1"\n'
    )
    (tmp_path / ".env").write_text("PREMIERE_THREADS=3\nPREMIERE_ACTIVITY_HISTORY=60\nGRAFANA_PASSWORD=x\n")
    monkeypatch.setenv("PREMIERE_THREADS", "4")
    settings = load()
    assert (settings.threads, settings.activity_history, settings.list_size) == (4, 60, 10)
    assert settings.bootstrap_servers == "a:1"
    assert load(threads=5).threads == 5


def test_premiere_variable_overrides_common_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "theirs:1")
    assert load().bootstrap_servers == "theirs:1"
    monkeypatch.setenv("PREMIERE_BOOTSTRAP_SERVERS", "ours:1")
    assert load().bootstrap_servers == "ours:1"


def test_empty_variable_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_HOME", "")
    assert load().kafka_home is None


def test_environment_round_trips_all_settings(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert settings.kafka_config() == {
        "bootstrap.servers": "k:1",
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "u",
        "sasl.password": "p",
        "ssl.ca.location": "/ca.pem",
    }


def test_secrets_are_masked() -> None:
    settings = load(redis_url="redis://me:hush@h:1/0", kafka_sasl_password="hush", kafka_ssl_key_password="hush")
    printed = f"{settings!r} {settings} {masked_values(settings)} {settings.model_dump()['kafka_sasl_password']}"
    assert "hush" not in printed
    assert masked_values(settings)["redis_url"] == "redis://me:**********@h:1/0"


@pytest.mark.parametrize("horizons", ["3,10", "0,5,5", "0,9,4", "", "0,x"])
def test_invalid_horizons_are_refused(horizons: str) -> None:
    with pytest.raises(SettingsError, match="setting horizons"):
        load(horizons=horizons)


def test_misspelled_variable_is_refused_with_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREMIERE_LIST_SIZ", "3")
    with pytest.raises(SettingsError, match="did you mean PREMIERE_LIST_SIZE"):
        load()


def test_misspelled_setting_in_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "premiere.toml").write_text("list_siz = 3\n")
    with pytest.raises(SettingsError, match="did you mean list_size"):
        load()


def test_invalid_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "premiere.toml").write_text("threads 2")
    with pytest.raises(SettingsError, match=r"premiere\.toml cannot be read"):
        load()


def test_missing_addresses_name_the_remedy() -> None:
    with pytest.raises(SettingsError, match="premiere up"):
        load().kafka_config()
    with pytest.raises(SettingsError, match="premiere up"):
        load().require_redis_url()


def test_running_local_services_are_found(tmp_path: Path) -> None:
    served = {"pid": os.getpid(), "bootstrap_servers": "up:1", "redis_url": "redis://up:2", "metrics_port": 9500}
    settings = load(data_dir=tmp_path)
    (tmp_path / ADDRESS_FILE).write_text(json.dumps(served))
    assert with_local_services(settings).bootstrap_servers == "up:1"
    assert with_local_services(settings).metrics_port == 9500
    assert with_local_services(load(data_dir=tmp_path, redis_url="redis://mine")).redis_url == "redis://mine"
    elsewhere = load(data_dir=tmp_path, bootstrap_servers="other:1")
    assert with_local_services(elsewhere) == elsewhere
    (tmp_path / ADDRESS_FILE).write_text(json.dumps(served | {"pid": 2**22 + 1}))  # above any process id
    assert with_local_services(settings) == settings
    (tmp_path / ADDRESS_FILE).write_text(json.dumps(served | {"format": 99}))
    with pytest.raises(SettingsError, match=r"another release .*format 99"):
        with_local_services(settings)


def test_table_describes_every_setting() -> None:
    rows = settings_table().splitlines()[2:]
    assert len(rows) == len(Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())
