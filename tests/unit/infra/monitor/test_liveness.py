"""A flow that says at `/livez` that it hangs, or that is silent for too long, is found."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from infra.monitor.liveness import LivenessProbe
from infra.monitor.metrics_server import metrics_port
from infra.settings import Settings
from tests.support.ports import free_base_port


class Endpoint(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/livez" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def settings() -> Iterator[Settings]:
    found = Settings(metrics_port=free_base_port(Settings(metrics_port=23_600)))
    server = ThreadingHTTPServer(("127.0.0.1", metrics_port(found, "learn")), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Endpoint.status = 200
    yield found
    server.shutdown()
    server.server_close()


def test_flow_hangs_when_its_endpoint_says_so(settings: Settings) -> None:
    probe = LivenessProbe(settings, interval_s=0)
    assert not probe.is_hung("learn")
    Endpoint.status = 503
    assert probe.is_hung("learn")
    Endpoint.status = 200
    assert not probe.is_hung("learn")


def test_silent_flow_hangs_after_some_time_only(settings: Settings) -> None:
    patient, impatient = LivenessProbe(settings, 0), LivenessProbe(settings, 0, max_silence_s=0)
    assert [patient.is_hung("publish") for _ in range(3)] == [False] * 3  # nothing listens: it may be starting
    assert [impatient.is_hung("publish") for _ in range(3)] == [False, True, False]  # then it is new again
    assert [impatient.is_hung("learn") for _ in range(3)] == [False] * 3


def test_flow_is_asked_once_per_interval(settings: Settings) -> None:
    probe = LivenessProbe(settings, interval_s=60)
    assert not probe.is_hung("learn")
    Endpoint.status = 503
    assert not probe.is_hung("learn")


def test_without_metrics_ports_nothing_hangs() -> None:
    probe = LivenessProbe(Settings(metrics_port=0), 0, max_silence_s=0)
    assert not any(probe.is_hung("learn") for _ in range(3))
