"""Versions are listed, served again by a rollback, and served on by a rollforward."""

import json
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest
from confluent_kafka import Producer
from fsspec.implementations.local import LocalFileSystem
from msgspec import structs
from prometheus_client import CollectorRegistry, Gauge, start_http_server
from typer.testing import CliRunner

from infra.cli.main import app
from infra.local.embedded import free_port
from infra.local.supervisor import FLOWS
from infra.monitor.metrics_server import metrics_port
from infra.operate.versions import VersionError, rollback, rollforward
from model import checkpoint
from streaming.records import to_json
from streaming.topics import MODEL_VERSIONS
from tests.support.versions import Deployment

pytestmark = pytest.mark.long


def test_rollback_pins_its_checkpoint_until_rollforward(learned: Deployment) -> None:
    newest = [version for version in learned.versions if version.cause == "learned"][-1]
    for number in (1, 0):
        rollback(learned.settings, number, learned.output.append)
        last, rows = learned.versions[-1], learned.rows()
        assert (last.cause, last.original_version, last.path) == ("rollback", number, learned.versions[number].path)
        assert [row["number"] for row in rows if row["active_rollback"]] == [len(rows) - 1]
        assert {row["path"] for row in rows if row["pinned"]} == {last.path}
    rollforward(learned.settings, learned.output.append)
    assert (learned.versions[-1].cause, learned.versions[-1].path) == ("rollforward", newest.path)
    assert not any(row["active_rollback"] or row["pinned"] for row in learned.rows())
    with pytest.raises(VersionError, match="No rollback is active"):
        rollforward(learned.settings, learned.output.append)


def test_absent_or_damaged_version_is_not_announced(learned: Deployment) -> None:
    count = len(learned.versions)
    with pytest.raises(VersionError, match="There is no version 999: `premiere versions`"):
        rollback(learned.settings, 999, learned.output.append)
    with Path(learned.versions[1].path, "log.state").open("r+b") as file:
        file.write(b"\xff")
    with pytest.raises(VersionError, match=r"Version 1 cannot be served\. The checkpoint at .* is damaged"):
        rollback(learned.settings, 1, learned.output.append)
    assert len(learned.versions) == count


def test_command_lists_versions_and_their_checkpoints(learned: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in learned.settings.environment().items():
        monkeypatch.setenv(name, value)
    shutil.rmtree(learned.versions[1].path)
    found = CliRunner().invoke(app, ["versions", "--json"])
    assert found.exit_code == 0, found.output
    rows = json.loads(found.output)
    assert [row["number"] for row in rows] == list(range(len(learned.versions)))
    assert [row["checkpoint_exists"] for row in rows[:4]] == [True, False, True, True]
    assert rows[0]["checkpoint_bytes"] > 1_000_000
    assert rows[1]["checkpoint_bytes"] is None
    assert "removed" in CliRunner().invoke(app, ["versions"]).output


def test_rollback_reports_whether_publish_serves_it(learned: Deployment) -> None:
    registry = CollectorRegistry()
    served = Gauge("premiere_version_served", "as in publish", registry=registry)
    settings = learned.settings.model_copy(update={"metrics_port": free_port() - FLOWS.index("publish")})
    server, thread = start_http_server(metrics_port(settings, "publish"), "127.0.0.1", registry=registry)
    try:
        served.set(0)
        with pytest.raises(VersionError, match="publish still serves version 0"):
            rollback(settings, 1, learned.output.append, timeout=0)
        number = len(learned.versions)  # of the next announcement
        threading.Timer(0.5, served.set, [number]).start()
        rollback(settings, 0, learned.output.append)
        assert learned.output[-1] == f"publish serves version {number}."
        served.set(number + 9)  # a later version is served as well
        rollforward(settings, learned.output.append)
        assert learned.output[-1] == f"publish serves version {number + 9}."
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    rollback(learned.settings, 0, learned.output.append)  # no metrics
    assert re.search(r"cannot be read here.* premiere_version_served .* \d+", learned.output[-1])
    rollforward(learned.settings, learned.output.append)


class Rotating(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A file system on which rotation removes a checkpoint while it is read."""

    protocol = "rotating"
    cachable = False

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        data: bytes = super().cat_file(path, start, end, **options)
        if not path.endswith("manifest.json"):
            Path(path).with_name("manifest.json").unlink(missing_ok=True)
        return data


def test_checkpoint_removed_during_rollback_is_not_announced(learned: Deployment) -> None:
    fsspec.register_implementation("rotating", Rotating, clobber=True)
    version = learned.versions[1]
    producer = Producer(learned.settings.kafka_config())
    producer.produce(MODEL_VERSIONS, to_json(structs.replace(version, path=f"rotating://{version.path}")), partition=0)
    assert producer.flush(10) == 0
    count = len(learned.versions)
    with pytest.raises(VersionError, match=r"cannot be served\. There is no checkpoint at .*: its manifest is missing"):
        rollback(learned.settings, count - 1, learned.output.append)
    assert len(learned.versions) == count
    assert not checkpoint.is_pinned(version.path)
