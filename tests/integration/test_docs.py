"""The documentation is a property of the code: its lists are whole, its examples run, its links lead somewhere."""

import json
import re
import time
import uuid
from pathlib import Path
from typing import Any, Final

import pytest
from redis import Redis

from features.store import open_store, write_title_semantics, write_user_activity
from infra.cli.main import app
from infra.topics import create
from streaming.flows import features, titles
from streaming.flows.features import sort as sort_events
from streaming.flows.titles import sort as sort_launches
from streaming.kafka import dead_letters
from streaming.kafka.source import Message, read_all
from streaming.state.user_history import UserEvent
from streaming.stores.redis_lists import WITHDRAWN, Prediction, RedisSink, key, read
from streaming.topics import TITLE_LAUNCHES, USER_EVENTS, topics
from tests.support.docs import CONTRACTS, LOCAL_KAFKA, _block
from tests.support.feature_rows import title_row, user_row
from tests.support.paths import ROOT
from tests.tools import generate_docs

MARKDOWN: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
README: Final = (ROOT / "README.md").read_text()
OPERATIONS: Final = (ROOT / "docs" / "operations.md").read_text()
LOCAL_REDIS: Final = "redis://localhost:6379/0"

each_page = pytest.mark.parametrize("page", MARKDOWN, ids=[str(page.relative_to(ROOT)) for page in MARKDOWN])


@pytest.mark.parametrize(("path", "wanted"), list(generate_docs.pages()), ids=lambda value: getattr(value, "name", ""))
def test_what_is_made_from_the_code_is_current(path: Path, wanted: str) -> None:
    assert path.exists(), "run: .venv/bin/python -m tests.tools.generate_docs"
    assert path.read_text() == wanted, "run: .venv/bin/python -m tests.tools.generate_docs"


def test_every_part_has_a_place() -> None:
    placed = {name for page in MARKDOWN for name in re.findall(r"<!-- made: (\w+) -->", page.read_text())}
    assert placed == set(generate_docs.PARTS)


def test_a_part_that_has_changed_is_noticed() -> None:
    page = "a\n<!-- made: actions -->\nold\n<!-- end -->\nb\n"
    assert "`play`" in generate_docs.made(page)
    assert generate_docs.made(generate_docs.made(page)) == generate_docs.made(page)


def test_every_command_that_is_named_exists() -> None:
    known = {command.callback.__name__.replace("_", "-") for command in app.registered_commands if command.callback}
    text = "".join(page.read_text() for page in MARKDOWN)
    named = set(re.findall(r"(?:`|bin/)premiere ([a-z]+(?:-[a-z]+)*)", text))
    assert named >= known
    assert named - known == set()


def test_both_commands_stand_in_the_readme() -> None:
    assert "\nmake demo " in README
    assert "\nmake test " in README


def test_every_kind_of_dead_letter_is_documented() -> None:
    sources = "".join(Path(str(module.__file__)).read_text() for module in (dead_letters, features, titles))
    raised = set(re.findall(r'Rejected\(f?"([a-zA-Z ]+):', sources)) | {"missing field", "wrong type"}
    section = CONTRACTS.partition("## Dead letters")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", section, re.M)) == raised


def test_every_alert_has_an_answer() -> None:
    alerts = re.findall(r"alert: (\w+)", (ROOT / "infra" / "docker" / "alerts.yml").read_text())
    assert re.findall(r"^\| `(\w+)` \|", OPERATIONS.partition("## When an alert comes")[2], re.M) == alerts


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not heading or heading in _headings(file), target


def _headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_producers_example_sends_what_the_flows_can_use(kafka: str) -> None:
    create({"bootstrap.servers": kafka}, topics())
    example = _block(CONTRACTS, "Producer(")
    assert len(example.strip().splitlines()) <= 10
    user, title = uuid.uuid4().hex, uuid.uuid4().hex
    own = example.replace(LOCAL_KAFKA, kafka).replace("viewer-42", user).replace("tt-9001", title)
    exec(own, {})
    events = [
        message for message in read_all({"bootstrap.servers": kafka}, USER_EVENTS) if message.key == user.encode()
    ]
    launches = [m for m in read_all({"bootstrap.servers": kafka}, TITLE_LAUNCHES) if m.key == title.encode()]
    taken, launched = sort_events(events), sort_launches(launches)
    assert (taken.rejected, launched.rejected) == ([], [])
    (event,) = taken.users[user]
    assert isinstance(event, UserEvent)
    assert event.title == title
    assert launched.titles[title][0].content.name == "Night Train"


def test_the_records_that_are_shown_can_be_used() -> None:
    shown = [line for block in re.findall(r"```json\n(.*?)```", CONTRACTS, re.S) for line in block.splitlines()]
    launches = [json.loads(line) for line in shown if '"title"' in line]
    messages = [_message(TITLE_LAUNCHES, i, launch["title"], json.dumps(launch)) for i, launch in enumerate(launches)]
    assert len(messages) == 2
    assert sort_launches(messages).rejected == []
    user, _, value = _block(CONTRACTS, "kafka-console-producer", "sh").split("'")[1].partition("|")
    assert sort_events([_message(USER_EVENTS, 0, user, value)]).rejected == []


def _message(topic: str, offset: int, name: str, value: str) -> Message:
    return Message(topic, 0, offset, int(time.time() * 1000), name.encode(), value.encode())


def test_the_readers_examples_read_what_was_written(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    user = uuid.uuid4().hex
    first, second, gone = (uuid.uuid4().hex for _ in range(3))
    lists = {0: [first, gone, second], 3: [second, first]}
    sink = RedisSink(redis_url).build_part("predictions", "0", None)
    sink.write_batch([[Prediction(user, lists, 1, (0, 1, 0), 1, 0)]])
    client = Redis.from_url(redis_url)
    client.sadd(WITHDRAWN, gone)
    scope: dict[str, Any] = {}
    exec(_block(CONTRACTS, "def recommended").replace(LOCAL_REDIS, redis_url).replace("viewer-42", user), scope)
    assert capsys.readouterr().out == f"{[first, second]}\n"
    decoding = Redis.from_url(redis_url, decode_responses=True)
    for passed in (0, 2, 3, 100):
        assert scope["recommended"](decoding, user, passed) == read(client, user, passed)
    exec(_block(README, "import read").replace(LOCAL_REDIS, redis_url).replace('"42"', f'"{user}"'), {})
    assert capsys.readouterr().out == f"{[first, second]}\n"
    client.srem(WITHDRAWN, gone)
    client.delete(key(user))


def test_the_fields_of_a_prediction_are_documented(redis_url: str) -> None:
    user = uuid.uuid4().hex
    sink = RedisSink(redis_url).build_part("predictions", "0", None)
    sink.write_batch([[Prediction(user, {0: [], 3: [], 10: []}, 1, (0, 1, 0), 1, 0)]])
    written: Any = Redis.from_url(redis_url, decode_responses=True).hgetall(key(user))
    section = CONTRACTS.partition("## Predictions in Redis")[2].partition("\n## ")[0]
    assert set(written) <= set(re.findall(r"`([\w:]+)`", section))


def test_feast_in_five_lines(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    example = _block(README, "FeatureStore(")
    assert len(example.replace("\n\n", "\n").strip().splitlines()) <= 5
    user, title = uuid.uuid4().hex, uuid.uuid4().hex
    store = open_store(redis_url, tmp_path / ".premiere" / "feast")
    write_user_activity(store, [user_row(user, 0, 1, [title])])
    write_title_semantics(store, [title_row(title)])
    exec(example.replace('"42"', f'"{user}"').replace('"318"', f'"{title}"'), {})
    found = eval(capsys.readouterr().out)
    assert found["recent_titles"] == [[title]]
    assert found["name"] == ["Amélie 🎬"]
