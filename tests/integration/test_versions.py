"""Versions on a real broker: derived again bit for bit, rolled back to and resumed, and no mistake without a word."""

import json
import re
import shutil
import threading
from collections.abc import Iterator
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
from infra.monitor.metrics_server import port
from infra.operate.verify import DeriveError, rederive
from infra.operate.versions import VersionError, listed, resume, rollback
from infra.settings import Settings
from infra.topics import create
from model import checkpoint
from streaming.records import Tick, Version, to_json
from streaming.topics import MODEL_VERSIONS, topics
from tests.support.kafka import OwnKafka
from tests.support.learn_flow import announced, produce, run_until
from tests.support.learner import Log

pytestmark = pytest.mark.long


class Learned:
    """A loop's settings, and the versions of a learner that ran over a log there."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.said = settings, list[str]()

    @property
    def versions(self) -> list[Version]:
        return announced(self.settings)

    def rows(self) -> list[dict[str, Any]]:
        return listed(self.settings)


@pytest.fixture(scope="module")
def first(own_kafka: OwnKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Learned, Path]]:
    """A broker with a log, and several versions; a copy of their checkpoints as they were."""
    folder = tmp_path_factory.mktemp("versions")
    with own_kafka(folder / "kafka") as address:
        create({"bootstrap.servers": address}, topics())
        settings = Settings(
            bootstrap_servers=address, data_dir=folder, checkpoint_seconds=2, keep_checkpoints=50, metrics_port=0
        )
        log = Log(seed=5, d_text=256).play(30)
        log.write(Tick(ts=0), later=3_000)
        produce(settings, log.messages)
        run_until(settings, 4)
        shutil.copytree(settings.checkpoints_url(), folder / "copy")
        yield Learned(settings), folder / "copy"


@pytest.fixture
def learned(first: tuple[Learned, Path]) -> Learned:
    """The same for each test, whatever another did to the checkpoints."""
    one, copy = first
    shutil.rmtree(one.settings.checkpoints_url())
    shutil.copytree(copy, one.settings.checkpoints_url())
    one.said.clear()
    return one


def test_a_version_derived_again_equals_the_one_that_is_kept_bit_for_bit(learned: Learned) -> None:
    number = len([one for one in learned.versions if one.cause == "learned"]) - 1
    for start in (0, None):
        rederive(learned.settings, number, start, None, learned.said.append)
    assert [said.endswith("equals the one that is kept, bit for bit.") for said in learned.said] == [True, True]
    assert "from version 0" in learned.said[0]


def test_the_first_version_is_derived_from_the_beginning_of_the_log(learned: Learned) -> None:
    rederive(learned.settings, 0, None, None, learned.said.append)
    assert "from the log's beginning, equals" in learned.said[0]


def test_a_bit_that_differs_is_told_with_its_part(learned: Learned) -> None:
    path = learned.versions[2].path
    state, manifest = checkpoint.load(path)
    state["log"]["replay"] += 1e-9
    checkpoint.save(path, state, {name: manifest[name] for name in manifest if name != "files"})
    with pytest.raises(DeriveError, match=r"differs in log\.state\."):
        rederive(learned.settings, 2, 0, None, learned.said.append)


def test_a_version_whose_checkpoint_is_gone_comes_back_from_the_log_and_can_be_served(learned: Learned) -> None:
    version = learned.versions[2]
    before = checkpoint.read_manifest(version.path)["files"]
    shutil.rmtree(version.path)
    with pytest.raises(VersionError, match=r"Version 2 cannot be served\. .*`premiere rederive 2 --to"):
        rollback(learned.settings, 2, learned.said.append)
    with pytest.raises(DeriveError, match="nothing to compare with, so give --to"):
        rederive(learned.settings, 2, None, None, learned.said.append)
    rederive(learned.settings, 2, None, version.path, learned.said.append)
    assert checkpoint.load(version.path)[1]["files"] == before
    assert checkpoint.pinned(version.path)
    rollback(learned.settings, 2, learned.said.append)
    resume(learned.settings, learned.said.append)


def test_a_rollback_pins_what_it_goes_back_to_until_it_is_resumed(learned: Learned) -> None:
    newest = [one for one in learned.versions if one.cause == "learned"][-1]
    for number in (1, 0):
        rollback(learned.settings, number, learned.said.append)
        last, rows = learned.versions[-1], learned.rows()
        assert (last.cause, last.of, last.path) == ("rollback", number, learned.versions[number].path)
        assert [row["number"] for row in rows if row["held"]] == [len(rows) - 1]
        assert {row["path"] for row in rows if row["pinned"]} == {last.path}
    resume(learned.settings, learned.said.append)
    assert (learned.versions[-1].cause, learned.versions[-1].path) == ("resume", newest.path)
    assert not any(row["held"] or row["pinned"] for row in learned.rows())
    with pytest.raises(VersionError, match="nothing to resume: no rollback is in force"):
        resume(learned.settings, learned.said.append)


def test_the_learner_goes_on_under_a_rollback_and_its_newest_version_is_what_is_resumed(learned: Learned) -> None:
    rollback(learned.settings, 0, learned.said.append)
    log = Log(seed=6, d_text=256).play(12)
    log.write(Tick(ts=0), later=3_000)
    many = len(learned.versions)
    produce(learned.settings, [one._replace(appended=one.appended + 10**8) for one in log.messages])
    run_until(learned.settings, many + 1)
    newest = len(learned.versions) - 1
    assert learned.versions[-1].cause == "learned"
    resume(learned.settings, learned.said.append)
    assert (learned.versions[-1].of, learned.versions[-1].path) == (newest, learned.versions[newest].path)


def test_mistakes_are_one_sentence_each(learned: Learned) -> None:
    with pytest.raises(VersionError, match="There is no version 999: `premiere versions` lists them"):
        rollback(learned.settings, 999, learned.said.append)
    with pytest.raises(DeriveError, match="Version 3 is not older than the one to derive"):
        rederive(learned.settings, 2, 3, None, learned.said.append)
    with pytest.raises(DeriveError, match=r"There is a checkpoint at .* already"):
        rederive(learned.settings, 2, None, learned.versions[1].path, learned.said.append)
    with Path(learned.versions[1].path, "log.state").open("r+b") as file:
        file.write(b"\xff")
    with pytest.raises(VersionError, match=r"Version 1 cannot be served\. The checkpoint at .* is damaged"):
        rollback(learned.settings, 1, learned.said.append)


def test_the_command_lists_what_was_announced_and_what_is_left_of_it(
    learned: Learned, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in learned.settings.environment().items():
        monkeypatch.setenv(name, value)
    shutil.rmtree(learned.versions[1].path)
    found = CliRunner().invoke(app, ["versions", "--json"])
    assert found.exit_code == 0, found.output
    rows = json.loads(found.output)
    assert [row["number"] for row in rows] == list(range(len(learned.versions)))
    assert [row["kept"] for row in rows[:4]] == [True, False, True, True]
    assert rows[0]["bytes"] > 1_000_000
    assert rows[1]["bytes"] is None
    assert "gone" in CliRunner().invoke(app, ["versions"]).output


def test_a_rollback_tells_whether_publish_serves_it(learned: Learned) -> None:
    told = CollectorRegistry()
    page = Gauge("premiere_version_served", "as publish tells it", registry=told)
    settings = learned.settings.model_copy(update={"metrics_port": free_port() - FLOWS.index("publish")})
    server, thread = start_http_server(port(settings, "publish"), "127.0.0.1", registry=told)
    try:
        page.set(0)
        with pytest.raises(VersionError, match=r"publish serves version 0 still, 0 s after .* The announcement stands"):
            rollback(settings, 1, learned.said.append, wait=0)
        number = len(learned.versions)  # of the next announcement
        threading.Timer(0.5, page.set, [number]).start()
        rollback(settings, 0, learned.said.append)
        assert learned.said[-1] == f"publish serves version {number}."
        page.set(number + 9)  # what is learned next is served as well
        resume(settings, learned.said.append)
        assert learned.said[-1] == f"publish serves version {number + 9}."
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    rollback(learned.settings, 0, learned.said.append)  # no metrics
    assert re.fullmatch(r"publish cannot be asked .* premiere_version_served is \d+\.", learned.said[-1])
    resume(learned.settings, learned.said.append)


class Rotating(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A folder of checkpoints from which rotation removes one while it is read."""

    protocol = "rotating"
    cachable = False

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **given: Any) -> bytes:
        data: bytes = super().cat_file(path, start, end, **given)
        if not path.endswith("manifest.json"):
            Path(path).with_name("manifest.json").unlink(missing_ok=True)
        return data


def test_what_rotation_removes_in_that_instant_is_not_announced(learned: Learned) -> None:
    fsspec.register_implementation("rotating", Rotating, clobber=True)
    one = learned.versions[1]
    producer = Producer(learned.settings.kafka())
    producer.produce(MODEL_VERSIONS, to_json(structs.replace(one, path=f"rotating://{one.path}")), partition=0)
    assert producer.flush(10) == 0
    many = len(learned.versions)
    with pytest.raises(VersionError, match=r"cannot be served\. There is no checkpoint at .*: its manifest is missing"):
        rollback(learned.settings, many - 1, learned.said.append)
    assert len(learned.versions) == many
    assert not checkpoint.pinned(one.path)
