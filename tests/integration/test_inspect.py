"""What somebody asks of a running loop: served lists by name, one event and one launch followed into Redis."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from infra.cli.main import app
from infra.local.services import services
from infra.local.supervisor import Supervisor
from infra.operate.inspect import slug
from infra.settings import Settings
from streaming import topics as t
from streaming.records import to_json
from streaming.stores.redis_lists import LAUNCHES, connect
from tests.support.streams import deadline
from tests.support.trained_version import DATA, version

pytestmark = pytest.mark.long

USER = DATA.event(len(DATA) - 1).user
cli = CliRunner()


@pytest.fixture(scope="module")
def loop(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A stack of this module's own, all flows but the learner, whose version is announced by hand."""
    folder = tmp_path_factory.mktemp("loop")
    with services(Settings(data_dir=folder, bootstrap_servers="", metrics_port=0)) as settings:
        producer = Producer(settings.kafka())
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
    """Until everything produced so far lies in Redis."""
    late = deadline(240)
    with connect(settings.redis()) as client:
        users = {DATA.event(n).user for n in range(len(DATA))}
        many = {user: sum(DATA.event(n).user == user for n in range(len(DATA))) for user in users}
        while any(client.hget(f"premiere:user:{user}", "events") != str(n).encode() for user, n in many.items()):
            flows.check()
            assert not late(), (settings.data_dir / "logs" / "publish.log").read_text()[-2000:]
            time.sleep(0.2)


@pytest.fixture(autouse=True)
def asked(loop: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The commands find the loop as a user's do: by its data folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "PREMIERE_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREMIERE_DATA_DIR", str(loop.data_dir))


def ask(*words: str) -> str:
    result = cli.invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.output


def test_recommend_shows_titles_by_name() -> None:
    names = {launch.title: launch.name for launch in DATA.launches}
    told = json.loads(ask("recommend", USER, "--json"))
    assert (told["user"], told["known"], told["version"]) == (USER, True, 0)
    assert told["titles"]
    assert all(one["name"] == names[one["title"]] for one in told["titles"])
    text = ask("recommend", USER)
    assert text.startswith(f"{USER}: {told['events']} events known, by version 0, written ")
    assert told["titles"][0]["name"] in text.splitlines()[1]


def test_a_viewer_nobody_has_seen_is_told_so_and_gets_the_default() -> None:
    text = ask("recommend", "nobody")
    assert text.startswith("nobody has not been seen: this is what every new viewer is served.\n   1 ")


def test_emit_follows_an_event_into_its_viewers_list() -> None:
    first = json.loads(ask("recommend", USER, "--json"))
    taken = first["titles"][0]
    text = ask("emit", USER, taken["title"])
    assert text.startswith(f"{USER}: {taken['name']}. After ")
    after = json.loads(ask("recommend", USER, "--json"))
    assert after["events"] == first["events"] + 1
    assert taken not in after["titles"]


def test_emit_makes_a_new_viewer_known() -> None:
    user = f"new-{uuid.uuid4().hex[:6]}"
    ask("emit", user, DATA.launches[0].title, "--rating", "5")
    assert json.loads(ask("recommend", user, "--json"))["events"] == 1


def test_launch_follows_a_title_without_an_event_into_the_lists_it_suits() -> None:
    overview = "An astronaut and a comet: the starship leaves orbit for a lunar colony; galaxy, rocket, asteroid."
    text = ask("launch", "--title", "Space II: Orbit!", "--overview", overview, "--genres", "Space", "--year", "2027")
    head, *entries = text.splitlines()
    many = int(head.removeprefix("Space II: Orbit! (space-ii-orbit) entered ").removesuffix(" lists."))
    assert many == len(entries) - 1 > 0
    for entry in entries[1:]:
        user = entry[6:22].strip()
        found = json.loads(ask("recommend", "nobody" if user == "new viewers" else user, "--json"))
        assert {"title": "space-ii-orbit", "name": "Space II: Orbit! (2027)"} in found["titles"]


def test_a_launch_that_says_nothing_new_and_an_unknown_action_are_one_sentence(loop: Settings) -> None:
    same = ["launch", "--title", "Twice", "--overview", "The very same."]
    ask(*same)
    again = cli.invoke(app, [*same, "--wait", "1"])
    assert again.exit_code == 1
    assert "a launch that says nothing new is not passed on" in again.stderr
    with connect(loop.redis()) as client:  # as a worker does while another one has no version yet
        told = json.dumps({"title": "twice", "entered": 0, "worker": 1, "workers": 3})
        tell = threading.Timer(1.0, client.publish, [LAUNCHES, told])
        tell.start()
        half = cli.invoke(app, [*same, "--wait", "3"])
        tell.join()
    assert half.exit_code == 1
    assert "of publish's workers 0, 2 did not answer" in half.stderr
    wrong = cli.invoke(app, ["emit", USER, "x", "--action", "stare"])
    assert (wrong.exit_code, wrong.stderr) == (
        1,
        "premiere: There is no action stare: docs/ lists them, `play` is one.\n",
    )


def test_ids_are_made_of_names() -> None:
    assert [slug(name) for name in ("Toy Story 4", "  Amélie! ", "!!!")] == [
        "toy-story-4",
        "amélie",
        "title-104394872",
    ]
