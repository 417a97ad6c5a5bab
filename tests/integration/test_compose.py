"""The compose stack, as far as files can tell: pinned, bounded, checked, and in step with the settings and metrics.

Whether it runs is seen by running it (README). Prometheus' own tool tests the alerts where it is installed.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client import REGISTRY

from infra.local.supervisor import FLOWS
from infra.monitor import lag_exporter  # noqa: F401 - for the metrics that it declares
from infra.monitor.metrics_server import port
from infra.settings import PREFIX, Settings
from streaming.flows import (
    titles,  # noqa: F401 - for the metrics that they declare
)
from tests.support.paths import ROOT

DOCKER: Final = ROOT / "infra" / "docker"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
ONCE: Final = {"topics", "replay"}  # run to their end: nothing to be healthy
OURS: Final = {*FLOWS, *ONCE}
PROMTOOL: Final = shutil.which("promtool")

each_service = pytest.mark.parametrize("name", SERVICES)


def test_every_flow_is_a_service() -> None:
    assert {name: SERVICES[name]["command"] for name in FLOWS} == {name: ["run", name] for name in FLOWS}


@each_service
def test_every_image_is_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    assert name in OURS or re.search(r":v?\d+\.\d+[.\d]*$", image), f"{image} may change under us"


@each_service
def test_every_service_is_bounded(name: str) -> None:
    limits = SERVICES[name]["deploy"]["resources"]["limits"]
    assert limits["memory"]
    assert limits["cpus"]
    assert SERVICES[name]["logging"]["options"]["max-size"]


@each_service
def test_every_service_that_stays_has_a_health_check(name: str) -> None:
    assert name in ONCE or SERVICES[name]["healthcheck"]["test"]


@pytest.mark.parametrize("flow", FLOWS)
def test_a_flow_is_asked_at_the_port_it_serves(flow: str) -> None:
    served = port(Settings(metrics_port=int(COMPOSE["x-premiere"]["environment"]["PREMIERE_METRICS_PORT"])), flow)
    assert SERVICES[flow]["healthcheck"]["test"][-1] == str(served)
    first, further = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"]
    assert {"targets": [f"{flow}:{served}"], "labels": {"flow": flow}} in first["static_configs"]
    others = [each["targets"] for each in further["static_configs"] if each["labels"]["flow"] == flow]
    workers = [target.split(":")[1] for targets in others for target in targets]
    # `premiere status` on the host asks every worker: one that is not published would be a flow that does not answer.
    assert SERVICES[flow]["ports"] == [f"127.0.0.1:{each}:{each}" for each in (served, *workers)]


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_containers_may_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "USER premiere" in (DOCKER / "Dockerfile").read_text()


@each_service
def test_nothing_is_published_beyond_this_machine(name: str) -> None:
    assert all(line.startswith("127.0.0.1:") for line in SERVICES[name].get("ports", []))


def test_every_setting_reaches_the_containers() -> None:
    passed = {name.removeprefix(PREFIX).lower() for name in COMPOSE["x-premiere"]["environment"]}
    assert set(Settings.model_fields) - passed == {
        name for name in Settings.model_fields if name.startswith("kafka_")
    } | {
        "data",  # of the replay alone
        "broker",  # the stack has one
    }
    assert passed <= set(Settings.model_fields)


def test_the_example_lists_every_variable_with_its_default() -> None:
    example = dict(re.findall(r"^#(\w+)=(\S*)", (ROOT / ".env.example").read_text(), re.M))
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    assert set(example) - used == {"PREMIERE_BOOTSTRAP_SERVERS", "PREMIERE_REDIS_URL"}  # for commands on the host
    assert used <= set(example)
    for name in used & {f"{PREFIX}{field.upper()}" for field in Settings.model_fields}:
        field = name.removeprefix(PREFIX).lower()
        assert getattr(Settings(**{field: example[name]}), field) == Settings.model_fields[field].default, name


def test_the_files_that_are_mounted_exist() -> None:
    mounted = [line.split(":")[0] for service in SERVICES.values() for line in service.get("volumes", [])]
    assert all((ROOT / path).exists() for path in mounted if path.startswith("./"))


def _exported() -> set[str]:
    """The names under which the flows export what they count."""
    families = [family for family in REGISTRY.collect() if family.name.startswith("premiere_")]
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return {family.name + suffix for family in families for suffix in suffixes.get(family.type, [""])}


@pytest.mark.parametrize("path", ["alerts.yml", "grafana/dashboards/premiere.json"])
def test_what_is_watched_is_exported(path: str) -> None:
    named = set(re.findall(r"\bpremiere_\w+", (DOCKER / path).read_text()))
    assert named
    assert named - _exported() == set()


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "words",
    [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]],
    ids=" ".join,
)
def test_prometheus_own_tool_agrees(words: list[str]) -> None:
    done = subprocess.run([str(PROMTOOL), *words], cwd=DOCKER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


class _Page(BaseHTTPRequestHandler):
    """A flow's metrics page, of what the server was given."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.page)  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.mark.parametrize(
    ("page", "code"),
    [
        (b'# HELP premiere_read_offset x\npremiere_read_offset{partition="0",topic="activity"} 7.0\n', 0),
        (b"# HELP premiere_read_offset x\n# TYPE premiere_read_offset gauge\n", 1),  # no source was built
    ],
)
def test_a_flow_is_well_once_it_reads_its_topics(page: bytes, code: int) -> None:
    with HTTPServer(("127.0.0.1", 0), _Page) as server:
        server.page = page  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert _healthy(server.server_port) == code
        thread.join()


def test_a_flow_that_does_not_answer_is_not_well() -> None:
    with HTTPServer(("127.0.0.1", 0), _Page) as server:
        taken = server.server_port
    assert _healthy(taken) == 1


def _healthy(at: int, env: Mapping[str, str] = os.environ) -> int:
    return subprocess.run([sys.executable, str(DOCKER / "healthy.py"), str(at)], env=env).returncode
