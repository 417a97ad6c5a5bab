"""Outages are logged once, and a probe tells whether a new client reaches the broker."""

import logging
import time

import pytest
from confluent_kafka import KafkaError

from infra.local.embedded import free_port
from streaming.kafka import reconnect
from streaming.kafka.reconnect import BrokerProbe, LogEndProbe, Outage
from tests.support.streams import deadline, new_topic, produce


@pytest.fixture
def config(kafka: str) -> dict[str, str]:
    return {"bootstrap.servers": kafka}


def test_outage_is_logged_once_at_its_start_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage("client")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            outage.begin(KafkaError(KafkaError._TRANSPORT))
        assert (outage.active, outage.count, len(caplog.records)) == (True, 1, 1)
        for _ in range(3):
            outage.end()
    assert (outage.active, outage.count, len(caplog.records)) == (False, 1, 2)


def test_probe_reaches_an_available_broker(kafka: str) -> None:
    probe = BrokerProbe({"bootstrap.servers": kafka})
    started_at = time.monotonic()
    probe.start()
    is_late = deadline(30)
    while probe.answered_at < started_at and not is_late():
        time.sleep(0.05)
    assert probe.answered_at >= started_at


def test_probe_of_an_unavailable_broker_gets_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "STALE_CLIENT_S", 0.5)
    probe = BrokerProbe({"bootstrap.servers": f"127.0.0.1:{free_port()}"})
    probe.start()
    assert probe._thread is not None
    probe._thread.join(30)
    assert not probe._thread.is_alive()
    assert probe.answered_at == float("-inf")


def test_log_end_probe_keeps_two_answers(config: dict[str, str]) -> None:
    topic = new_topic(config, 2)
    produce(config, topic, [0], partition=1)
    probe = LogEndProbe(config, topic)
    for now, ends in ((100.0, {0: 0, 1: 1}), (200.0, {0: 0, 1: 2})):
        probe.start(now)
        probe.start(now + 1)  # too early for another one
        is_late = deadline(30)
        while probe.last.asked_at != now and not is_late():
            time.sleep(0.05)
        assert probe.last == (now, ends)
        produce(config, topic, [1], partition=1)
    assert probe.previous == (100.0, {0: 0, 1: 1})


def test_log_end_probe_of_an_unavailable_broker_gets_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "STALE_CLIENT_S", 0.2)
    probe = LogEndProbe({"bootstrap.servers": f"127.0.0.1:{free_port()}"}, "t")
    probe._run(100.0)
    assert probe.last.offsets == {}
