"""Sources of settings and invalid values."""

import os
import re
from pathlib import Path

import pytest

from infra.errors import SettingsError
from infra.settings import load
from streaming.records import to_msgpack
from tests.support.largest_activity import largest_activity, max_activity_history


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting in the environment, no file in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("PREMIERE_") or name in ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_HOME", "REDIS_URL"):
            monkeypatch.delenv(name)


def test_environment_overrides_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "premiere.toml").write_text(
        'threads = 2\nactivity_history = 150\nlist_size = 10\nbootstrap_servers = "a:1"\n'
    )
    (tmp_path / ".env").write_text("PREMIERE_THREADS=3\nPREMIERE_ACTIVITY_HISTORY=160\nGRAFANA_PASSWORD=x\n")
    monkeypatch.setenv("PREMIERE_THREADS", "4")
    settings = load()
    assert (settings.threads, settings.activity_history, settings.list_size) == (4, 160, 10)
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


@pytest.mark.parametrize("prefix", ["a:b", "a b", "a.b", "a-b", "_a", "premiere", "a*", "ä", "x" * 65])
def test_invalid_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(SettingsError, match="setting prefix"):
        load(prefix=prefix)


def test_prefix_names_the_deployment_in_kafka_and_redis() -> None:
    default = load(bootstrap_servers="k:1")
    assert (default.namespace, default.kafka_config()) == ("premiere", {"bootstrap.servers": "k:1"})
    staging = load(bootstrap_servers="k:1", prefix="Staging_2")
    assert (staging.namespace, staging.kafka_config()["premiere.prefix"]) == ("Staging_2", "Staging_2")


@pytest.mark.parametrize("horizons", ["3,10", "0,5,5", "0,9,4", "", "0,x"])
def test_invalid_horizons_are_refused(horizons: str) -> None:
    with pytest.raises(SettingsError, match="setting horizons"):
        load(horizons=horizons)


def test_misspelled_variable_is_refused_with_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREMIERE_LIST_SIZ", "3")
    with pytest.raises(SettingsError, match="did you mean PREMIERE_LIST_SIZE"):
        load()


@pytest.mark.parametrize("name", ["premiere_bakbone__width", "Premiere_Seeed", "PREMIERE_BACKBONE__WIDHT"])
def test_misspelled_variable_is_refused_in_any_case(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "3")
    with pytest.raises(SettingsError, match=f"Unknown setting {name.upper()}"):
        load()


def test_table_in_place_of_a_setting_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "premiere.toml").write_text("backbone = 3\n")
    with pytest.raises(SettingsError, match=r"backbone is a table of settings .* for example backbone\."):
        load()
    (tmp_path / "premiere.toml").write_text("[backbon]\n")
    with pytest.raises(SettingsError, match="Unknown setting backbon"):
        load()
    (tmp_path / "premiere.toml").write_text("[backbone]\n")
    load()
    monkeypatch.setenv("PREMIERE_BACKBONE", "97")
    with pytest.raises(SettingsError, match=r"PREMIERE_BACKBONE is a table of settings .* PREMIERE_BACKBONE__"):
        load()


def test_variables_of_a_kubernetes_service_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "PORT": "tcp://10.0.0.1:80",
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "80",
        "SERVICE_PORT_HTTP": "80",
    }
    variables |= {"PORT_80_TCP": "tcp://10.0.0.1:80", "PORT_80_TCP_ADDR": "10.0.0.1", "PORT_80_TCP_PROTO": "tcp"}
    for name, value in variables.items():
        monkeypatch.setenv(f"PREMIERE_{name}", value)
    load()
    monkeypatch.setenv("PREMIERE_METRICS_PORT", "tcp://10.0.0.1:80")
    with pytest.raises(SettingsError, match=r"metrics_port.*Kubernetes service.*enableServiceLinks"):
        load()


def test_misspelled_port_is_no_kubernetes_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREMIERE_METRIC_PORT", "80")
    with pytest.raises(SettingsError, match="did you mean PREMIERE_METRICS_PORT"):
        load()


def test_misspelled_variable_in_env_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("IMAGE_TAG=dev\nexport PREMIERE_LIST_SIZ=3\n")
    with pytest.raises(SettingsError, match="did you mean PREMIERE_LIST_SIZE"):
        load()


@pytest.mark.parametrize("name", [".env", "premiere.toml"])
def test_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes("PREMIERE_DATA='Kürze'\n".encode("latin-1"))
    with pytest.raises(SettingsError, match=f"{re.escape(name)} is not UTF-8"):
        load()
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(SettingsError, match=f"{re.escape(name)} cannot be read"):
        load()


@pytest.mark.parametrize(
    "url", ["redis://:hu/sh@h", "redis://h:hush", "redis+sentinel://:hu/sh@h/lists", "localhost:6379"]
)
def test_invalid_redis_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match=r"redis_url.*encode special characters") as caught:
        load(redis_url=url)
    assert "sh" not in str(caught.value).replace("redis", "")


def test_misspelled_setting_in_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "premiere.toml").write_text("list_siz = 3\n")
    with pytest.raises(SettingsError, match="did you mean list_size"):
        load()


@pytest.mark.parametrize("name", [".env", "premiere.toml"])
def test_byte_order_mark_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("\ufeffthreads = 1\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="begins with a byte order mark"):
        load()


def test_seed_fits_into_what_libraries_take() -> None:
    with pytest.raises(SettingsError, match="it must be at most 2147483647"):
        load(seed=10**22)


def test_invalid_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "premiere.toml").write_text("threads 2")
    with pytest.raises(SettingsError, match=r"premiere\.toml cannot be read"):
        load()


def test_missing_addresses_name_the_remedy() -> None:
    with pytest.raises(SettingsError, match="premiere up"):
        load().kafka_config()
    with pytest.raises(SettingsError, match="premiere up"):
        load().require_redis_url()


def test_largest_activity_fits_into_a_kafka_record() -> None:
    size = max_activity_history()
    record = largest_activity(size)
    assert len(record.titles) == size * 3 // 2
    assert 700_000 < len(to_msgpack(record)) < 1_000_000
