"""Outages are logged once, and a probe tells whether a new client reaches the broker."""

import logging
import queue
import threading
import time
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError

from infra.local.embedded import free_port
from streaming.kafka import reconnect
from streaming.kafka.client import DISCARD_THREAD
from streaming.kafka.reconnect import BrokerProbe, LogEndProbe, Outage, ReconnectingClient
from tests.support.streams import deadline, new_topic, produce

TRANSPORT_ERROR = KafkaError(KafkaError._TRANSPORT)


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


def test_outage_can_be_logged_at_another_level(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Outage("client", logging.DEBUG).begin(TRANSPORT_ERROR)
    assert caplog.records == []


class Client:
    """Reports which thread destroys it."""

    def __init__(self, on_error: Callable[[KafkaError], None], destroyed_by: queue.SimpleQueue[str]) -> None:
        self.on_error, self.destroyed_by = on_error, destroyed_by

    def __del__(self) -> None:
        self.destroyed_by.put(threading.current_thread().name)


def test_client_is_replaced_after_each_outage_and_errors_of_the_old_one_are_ignored() -> None:
    destroyed_by = queue.SimpleQueue[str]()
    connection = ReconnectingClient(lambda on_error: Client(on_error, destroyed_by))
    assert not connection.may_be_stale
    old_callback = connection.current.on_error
    for count in (2, 3):
        connection.current.on_error(TRANSPORT_ERROR)
        assert connection.may_be_stale
        connection.outage.end()
        assert connection.may_be_stale  # a client that recovered cannot be told from one that did not
        connection.replace()
        assert (connection.count, connection.may_be_stale) == (count, False)
        assert destroyed_by.get(timeout=30) == DISCARD_THREAD  # because it may block
    old_callback(TRANSPORT_ERROR)
    assert not connection.may_be_stale
    connection.discard()
    assert destroyed_by.get(timeout=30) == DISCARD_THREAD


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
