"""Services that the settings do not name are started, and their addresses are in the data folder while they run."""

import json
import os
import stat
from pathlib import Path

import pytest
from redis import Redis

from infra.errors import ServiceError, SettingsError
from infra.local.address_file import ADDRESS_FILE, with_local_services
from infra.local.embedded import free_port, kafka_answers, redis_answers, start_kafka, start_redis
from infra.local.services import REDIS_URL_FILE, start_services
from infra.settings import Settings
from infra.topics import partition_counts
from streaming.topics import topics


def test_services_run_and_are_found_during_the_context(broker: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, bootstrap_servers="", redis_url="", metrics_port=28_000, publish_workers=2)
    with start_services(settings) as ready:
        assert kafka_answers(ready.bootstrap_servers)
        assert redis_answers(ready.redis_url)
        url_file = tmp_path / REDIS_URL_FILE
        assert (url_file.read_text().strip(), stat.S_IMODE(url_file.stat().st_mode)) == (ready.redis_url, 0o600)
        found = partition_counts(ready.kafka_config())
        assert {topic.name: found[topic.name] for topic in topics()} == {t.name: t.partitions for t in topics()}
        assert with_local_services(settings) == ready
        with pytest.raises(SettingsError, match="already running"), start_services(settings):
            pass
        assert stat.S_IMODE((tmp_path / ADDRESS_FILE).stat().st_mode) == 0o600  # a URL may contain a password
        written = json.loads((tmp_path / ADDRESS_FILE).read_text())
        assert (written["pid"], written["publish_workers"]) == (os.getpid(), 2)
    assert not (tmp_path / ADDRESS_FILE).exists()
    assert not kafka_answers(ready.bootstrap_servers)
    assert not redis_answers(ready.redis_url)
    assert not url_file.exists()


def test_fixed_ports_are_used_and_a_taken_one_is_refused(broker: str, tmp_path: Path) -> None:
    settings, ports = Settings(data_dir=tmp_path, bootstrap_servers="", metrics_port=0), (free_port(), free_port())
    for _ in range(2):  # also on a node that exists
        with start_services(settings, *ports) as ready:
            assert ready.bootstrap_servers.endswith(f":{ports[0]}")
            assert f":{ports[1]}/" in ready.redis_url
            with pytest.raises(ServiceError, match="--redis-port cannot be used"), start_redis(tmp_path, ports[1]):
                pass
            with pytest.raises(ServiceError, match="--kafka-port cannot be used"), start_kafka(tmp_path, port=ports[0]):
                pass


def test_redis_keeps_its_data_if_the_broker_does(kafka: str, broker: str, tmp_path: Path) -> None:
    kept = []
    for address in ("", kafka):
        settings = Settings(data_dir=tmp_path / f"{bool(address)}", bootstrap_servers=address, metrics_port=0)
        for _ in range(2):
            with start_services(settings) as ready, Redis.from_url(ready.redis_url) as client:
                kept.append(client.exists("premiere:test"))
                client.set("premiere:test", 1)
    assert kept == [0, int(broker == "apache"), 0, 1]


def test_named_services_are_used(broker: str, redis_url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, bootstrap_servers="", redis_url=redis_url, metrics_port=0)
    with start_services(settings) as ready:
        assert (ready.redis_url, ready.metrics_port) == (redis_url, 0)
    assert redis_answers(redis_url)
    assert not (tmp_path / "redis").exists()


def test_two_brokers_are_refused(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, bootstrap_servers="127.0.0.1:1", broker="embedded")
    with pytest.raises(SettingsError, match="Two brokers are configured"), start_services(settings):
        pass
    assert not (tmp_path / "kafka").exists()
