"""The Kubernetes manifests are valid, and agree with the code; the systemd unit has no unknown directive."""

import re
import shutil
import subprocess
from typing import Any, Final

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from infra.errors import FlowOwnedError
from infra.local.supervisor import FLOWS
from infra.monitor.metrics_server import PROBED_PHASES, metrics_port
from infra.settings import Settings
from infra.settings_names import ENV_PREFIX
from tests.support.paths import ROOT

FOLDER: Final = ROOT / "infra" / "kubernetes"
UNIT: Final = ROOT / "infra" / "systemd" / "premiere@.service"
KUBERNETES_VERSION: Final = "1.30"
OBJECTS: Final[list[dict[str, Any]]] = [
    one for path in sorted(FOLDER.glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())
]
PODS: Final = {
    one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in OBJECTS if "template" in one.get("spec", {})
}


def names(*kinds: str) -> set[str]:
    return {one["metadata"]["name"] for one in OBJECTS if one["kind"] in kinds}


@pytest.mark.parametrize("manifest", OBJECTS, ids=lambda one: f"{one['kind']} {one['metadata']['name']}")
def test_manifest_is_valid(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)


def test_each_flow_has_its_objects() -> None:
    flows = {f"premiere-{flow}" for flow in FLOWS}
    assert names("StatefulSet", "Deployment") == names("PodDisruptionBudget") == flows
    assert names("StatefulSet") == {"premiere-features", "premiere-titles", "premiere-learn"} == names("Service")


@pytest.mark.parametrize("flow", FLOWS)
def test_probes_and_ports_are_those_of_the_flow(flow: str) -> None:
    (container,) = PODS[f"premiere-{flow}"]["containers"]
    config = next(one["data"] for one in OBJECTS if one["kind"] == "ConfigMap")
    settings = Settings(metrics_port=int(config["PREMIERE_METRICS_PORT"]))
    assert container["args"] == ["run", flow]
    assert container["ports"] == [{"name": "metrics", "containerPort": metrics_port(settings, flow)}]
    paths = [container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert paths == ["/startupz", "/livez", "/readyz"]
    assert set(paths) == {*PROBED_PHASES, "/livez"}


@pytest.mark.parametrize("name", PODS)
def test_pod_has_no_privileges_and_no_service_variables(name: str) -> None:
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"]
    assert (pod["enableServiceLinks"], pod["automountServiceAccountToken"]) == (False, False)
    for container in pod["containers"]:
        context = container["securityContext"]
        assert (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"]) == (True, False)
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]


def test_every_variable_is_a_setting() -> None:
    values = [one.get("data", one.get("stringData")) for one in OBJECTS if one["kind"] in ("ConfigMap", "Secret")]
    used = {name for one in values for name in one or ()}
    unit = set(re.findall(rf"({ENV_PREFIX}\w+)=", UNIT.read_text()))
    assert used | unit <= {f"{ENV_PREFIX}{field.upper()}" for field in Settings.model_fields}


def test_unit_does_not_restart_a_flow_that_another_process_owns() -> None:
    assert f"RestartPreventExitStatus={FlowOwnedError.exit_code}" in UNIT.read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit() -> None:
    done = subprocess.run(["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True)
    assert "Unknown" not in done.stderr, done.stderr
