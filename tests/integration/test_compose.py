"""Static checks of the Docker Compose files: pinned images, limits, health checks, settings and metric names.

They do not start the containers. Prometheus's own tool tests the alerts if it is installed.
"""

import re
import shutil
import subprocess
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client import REGISTRY, generate_latest

from infra.local.supervisor import FLOWS
from infra.model_settings import TABLES
from infra.monitor import lag_exporter  # noqa: F401 - declares metrics
from infra.monitor.metrics_server import metrics_port
from infra.settings import Settings
from infra.settings_names import ENV_PREFIX
from streaming.flows import features, learn, publish, titles  # noqa: F401 - declare metrics
from streaming.stores import feast_online  # noqa: F401 - declares metrics
from tests.support.paths import ROOT

DOCKER: Final = ROOT / "infra" / "docker"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
JOBS: Final = {"topics", "produce"}  # containers that run once and exit
PREMIERE_SERVICES: Final = {*FLOWS, *JOBS}
PROMTOOL: Final = shutil.which("promtool")

each_service = pytest.mark.parametrize("name", SERVICES)


def test_each_flow_is_a_service() -> None:
    assert {name: SERVICES[name]["command"] for name in FLOWS} == {name: ["run", name] for name in FLOWS}


@each_service
def test_image_is_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    assert name in PREMIERE_SERVICES or re.search(r":v?\d+\.\d+[.\d]*$", image), f"{image} may change under us"


@each_service
def test_service_has_resource_limits(name: str) -> None:
    limits = SERVICES[name]["deploy"]["resources"]["limits"]
    assert limits["memory"]
    assert limits["cpus"]
    assert SERVICES[name]["logging"]["options"]["max-size"]


@each_service
def test_long_running_service_has_health_check(name: str) -> None:
    assert name in JOBS or SERVICES[name]["healthcheck"]["test"]


@pytest.mark.parametrize("flow", FLOWS)
def test_health_check_and_prometheus_use_flow_port(flow: str) -> None:
    base = int(COMPOSE["x-premiere"]["environment"]["PREMIERE_METRICS_PORT"])
    port = metrics_port(Settings(metrics_port=base), flow)
    assert SERVICES[flow]["healthcheck"]["test"][-1] == str(port)
    first, additional = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"]
    assert {"targets": [f"{flow}:{port}"], "labels": {"flow": flow}} in first["static_configs"]
    others = [each["targets"] for each in additional["static_configs"] if each["labels"]["flow"] == flow]
    workers = [target.split(":")[1] for targets in others for target in targets]
    # `premiere status` on the host scrapes every worker, so all ports must be published.
    assert SERVICES[flow]["ports"] == [f"127.0.0.1:{each}:{each}" for each in (port, *workers)]


@pytest.mark.parametrize("name", sorted(PREMIERE_SERVICES))
def test_premiere_containers_have_minimal_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "USER premiere" in (DOCKER / "Dockerfile").read_text()


@each_service
def test_ports_are_published_on_loopback_only(name: str) -> None:
    assert all(line.startswith("127.0.0.1:") for line in SERVICES[name].get("ports", []))


def test_compose_passes_every_setting() -> None:
    passed = {name.removeprefix(ENV_PREFIX).lower() for name in COMPOSE["x-premiere"]["environment"]}
    top_level = set(Settings.model_fields) - set(TABLES)  # the tables' settings come from the file learner.env
    assert top_level - passed == {name for name in top_level if name.startswith("kafka_")} | {
        "data",  # only for the service produce
        "broker",  # Compose runs Apache Kafka
    }
    assert passed <= top_level
    assert COMPOSE["x-premiere"]["env_file"] == [{"path": "learner.env", "required": False}]


def test_env_example_lists_each_variable_with_default() -> None:
    example = dict(re.findall(r"^#(\w+)=(\S*)", (ROOT / ".env.example").read_text(), re.M))
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    assert set(example) - used == {"PREMIERE_BOOTSTRAP_SERVERS", "PREMIERE_REDIS_URL"}  # for commands on the host
    assert used <= set(example)
    for name in used & {f"{ENV_PREFIX}{field.upper()}" for field in Settings.model_fields}:
        field = name.removeprefix(ENV_PREFIX).lower()
        assert getattr(Settings(**{field: example[name]}), field) == Settings.model_fields[field].default, name


def test_mounted_files_exist() -> None:
    mounted = [line.split(":")[0] for service in SERVICES.values() for line in service.get("volumes", [])]
    assert all((ROOT / path).exists() for path in mounted if path.startswith("./"))


def _exported() -> set[str]:
    """The names of the samples that the flows export."""
    families = [family for family in REGISTRY.collect() if family.name.startswith("premiere_")]
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return {family.name + suffix for family in families for suffix in suffixes.get(family.type, [""])}


@pytest.mark.parametrize("path", ["alerts.yml", "grafana/dashboards/premiere.json"])
def test_alerts_and_dashboard_use_exported_metrics(path: str) -> None:
    named = set(re.findall(r"\bpremiere_\w+", (DOCKER / path).read_text()))
    assert named
    assert named - _exported() == set()


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "words",
    [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]],
    ids=" ".join,
)
def test_promtool_accepts_rules(words: list[str]) -> None:
    done = subprocess.run([str(PROMTOOL), *words], cwd=DOCKER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_metrics_follow_prometheus_conventions() -> None:
    done = subprocess.run([str(PROMTOOL), "check", "metrics"], input=generate_latest(), capture_output=True)
    assert (done.returncode, done.stderr.decode()) == (0, "")
