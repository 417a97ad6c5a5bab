"""`premiere recommend`, `send-event` and `launch` with running flows."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from features.redis_address import connect
from infra.cli.main import app
from infra.local.services import start_services
from infra.local.supervisor import Supervisor
from infra.settings import Settings
from streaming import topics as t
from streaming.kafka.client import producer_config
from streaming.records import to_json
from streaming.stores.list_client import launch_channel
from tests.support.streams import deadline
from tests.support.trained_version import DATA, version

pytestmark = pytest.mark.long

USER = DATA.event(len(DATA) - 1).user
cli = CliRunner()


@pytest.fixture(scope="module")
def loop(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Services and all flows except the learner, with an announced version."""
    folder = tmp_path_factory.mktemp("loop")
    with start_services(Settings(data_dir=folder, bootstrap_servers="", metrics_port=0)) as settings:
        producer = Producer(producer_config(settings.kafka_config()))
        for launch in DATA.launches:
            producer.produce(t.TITLE_LAUNCHES, to_json(launch), launch.title)
        for n in range(len(DATA)):
            producer.produce(t.USER_EVENTS, to_json(DATA.event(n)), DATA.event(n).user)
        producer.produce(t.MODEL_VERSIONS, to_json(version(settings, folder / "checkpoints")))
        assert producer.flush(20) == 0
        with Supervisor(settings, ("features", "titles", "publish")) as flows:
            wait(settings, flows)
            yield settings


def wait(settings: Settings, flows: Supervisor) -> None:
    """Wait until Redis contains everything that was produced."""
    late = deadline(240)
    with connect(settings.require_redis_url()) as client:
        users = {DATA.event(n).user for n in range(len(DATA))}
        counts = {user: sum(DATA.event(n).user == user for n in range(len(DATA))) for user in users}
        while any(client.hget(f"premiere:user:{user}", "events") != str(n).encode() for user, n in counts.items()):
            flows.check()
            assert not late(), (settings.data_dir / "logs" / "publish.log").read_text()[-2000:]
            time.sleep(0.2)


@pytest.fixture(autouse=True)
def environment(loop: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the commands find the services by the data folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "PREMIERE_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREMIERE_DATA_DIR", str(loop.data_dir))


def run(*arguments: str) -> str:
    result = cli.invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_recommend_prints_title_names() -> None:
    names = {launch.title: launch.name for launch in DATA.launches}
    found = json.loads(run("recommend", USER, "--json"))
    assert (found["user"], found["known"], found["version"]) == (USER, True, 0)
    assert found["titles"]
    assert all(entry["name"] == names[entry["title"]] for entry in found["titles"])
    text = run("recommend", USER)
    assert text.startswith(f"{USER}: {found['events']} known events, version 0, written ")
    assert found["titles"][0]["name"] in text.splitlines()[1]


def test_unknown_user_gets_default_list() -> None:
    text = run("recommend", "nobody")
    first, *entries = text.splitlines()
    assert "unknown user" in first
    assert entries[0].startswith("   1 ")


def test_send_event_waits_for_changed_list() -> None:
    first = json.loads(run("recommend", USER, "--json"))
    watched = first["titles"][0]
    text = run("send-event", USER, watched["title"])
    assert text.startswith(f"{USER}: {watched['name']}. The list after ")
    after = json.loads(run("recommend", USER, "--json"))
    assert after["events"] == first["events"] + 1
    assert watched not in after["titles"]


def test_send_event_creates_list_of_new_user() -> None:
    user = f"new-{uuid.uuid4().hex[:6]}"
    run("send-event", user, DATA.launches[0].title, "--rating", "5")
    assert json.loads(run("recommend", user, "--json"))["events"] == 1


def test_launch_prints_lists_that_new_title_entered() -> None:
    overview = "An astronaut and a comet: the starship leaves orbit for a lunar colony; galaxy, rocket, asteroid."
    text = run("launch", "--title", "Space II: Orbit!", "--overview", overview, "--genres", "Space", "--year", "2027")
    head, *entries = text.splitlines()
    count = int(head.removeprefix("Space II: Orbit! (space-ii-orbit) entered ").removesuffix(" lists."))
    assert count == len(entries) - 1 > 0
    for entry in entries[1:]:
        user = entry[6:22].strip()
        found = json.loads(run("recommend", "nobody" if user == "unknown users" else user, "--json"))
        assert {"title": "space-ii-orbit", "name": "Space II: Orbit! (2027)"} in found["titles"]


def test_launch_without_effect_and_unknown_action_are_errors(loop: Settings) -> None:
    same = ["launch", "--title", "Twice", "--overview", "The very same."]
    run(*same)
    again = cli.invoke(app, [*same, "--wait", "1"])
    assert again.exit_code == 1
    assert "a launch that changes nothing is not forwarded" in again.stderr
    with connect(loop.require_redis_url()) as client:  # as a worker does while others have no version yet
        message = json.dumps({"title": "twice", "entered": 0, "worker": 1, "workers": 3})
        worker = threading.Timer(1.0, client.publish, [launch_channel(), message])
        worker.start()
        incomplete = cli.invoke(app, [*same, "--wait", "3"])
        worker.join()
    assert incomplete.exit_code == 1
    assert "publish workers 0, 2" in incomplete.stderr
    wrong = cli.invoke(app, ["send-event", USER, "x", "--action", "stare"])
    assert wrong.exit_code == 1
    assert "There is no action stare" in wrong.stderr
