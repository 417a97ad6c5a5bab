"""The documentation: generated parts are current, examples run, and links are valid."""

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
from infra.topics import create_topics
from streaming.flows.features import parse_events, parse_requests
from streaming.flows.titles import parse_launches, parse_withdrawals
from streaming.kafka import dead_letters
from streaming.kafka.client import producer_config
from streaming.kafka.source import Message, read_all
from streaming.state.title_state import TitleLaunch
from streaming.state.user_history import UserEvent
from streaming.stores.list_client import key, read, withdrawn_key
from streaming.stores.redis_lists import Prediction, RedisSink
from streaming.topics import ERASURE_REQUESTS, TITLE_LAUNCHES, TITLE_WITHDRAWALS, USER_EVENTS, topics
from tests.support.docs import CONTRACTS, EXAMPLE_USER, LOCAL_KAFKA, code_block
from tests.support.feature_rows import title_row, user_row
from tests.support.paths import ROOT
from tests.tools import generate_docs

MARKDOWN: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
README: Final = (ROOT / "README.md").read_text()
OPERATIONS: Final = (ROOT / "docs" / "operations.md").read_text()
LOCAL_REDIS: Final = "redis://localhost:6379/0"

each_page = pytest.mark.parametrize("page", MARKDOWN, ids=[str(page.relative_to(ROOT)) for page in MARKDOWN])


@pytest.mark.parametrize(
    ("path", "expected"), list(generate_docs.pages()), ids=lambda value: getattr(value, "name", "")
)
def test_generated_parts_are_current(path: Path, expected: str) -> None:
    assert path.exists(), "run: .venv/bin/python -m tests.tools.generate_docs"
    assert path.read_text() == expected, "run: .venv/bin/python -m tests.tools.generate_docs"


def test_every_generated_part_is_used() -> None:
    used = {name for page in MARKDOWN for name in re.findall(r"<!-- generated: (\w+) -->", page.read_text())}
    assert used == set(generate_docs.PARTS)


def test_generate_replaces_outdated_part() -> None:
    page = "a\n<!-- generated: actions -->\nold\n<!-- end -->\nb\n"
    generated = generate_docs.generate(page)
    assert "`play`" in generated
    assert generate_docs.generate(generated) == generated


def test_every_documented_command_exists_and_every_command_is_documented() -> None:
    commands = {command.callback.__name__.replace("_", "-") for command in app.registered_commands if command.callback}
    text = "".join(page.read_text() for page in MARKDOWN)
    documented = set(re.findall(r"(?:`|bin/)premiere ([a-z]+(?:-[a-z]+)*)", text))
    assert documented == commands


def test_readme_has_make_commands() -> None:
    assert "\nmake demo " in README
    assert "\nmake test " in README


def test_every_dead_letter_reason_is_documented() -> None:
    section = CONTRACTS.partition("## Dead letters")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", section, re.M)) == set(dead_letters.REASONS)


def test_every_alert_is_documented() -> None:
    alerts = re.findall(r"alert: (\w+)", (ROOT / "infra" / "docker" / "alerts.yml").read_text())
    table = OPERATIONS.partition("## Alerts")[2].partition("\n**")[0]  # the first table of the section
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == alerts


@each_page
def test_links_are_valid(page: Path) -> None:
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


def test_producer_example_sends_valid_records(kafka: str) -> None:
    create_topics({"bootstrap.servers": kafka}, topics())
    example = code_block(CONTRACTS, "Producer(")
    assert len(example.strip().splitlines()) <= 10
    user, title = uuid.uuid4().hex, uuid.uuid4().hex
    code = example.replace(LOCAL_KAFKA, kafka).replace(EXAMPLE_USER, user).replace("tt-9001", title)
    exec(code, {})
    events = [
        message for message in read_all({"bootstrap.servers": kafka}, USER_EVENTS) if message.key == user.encode()
    ]
    launches = [m for m in read_all({"bootstrap.servers": kafka}, TITLE_LAUNCHES) if m.key == title.encode()]
    parsed_events, parsed_launches = parse_events(events), parse_launches(launches)
    assert (parsed_events.letters, parsed_launches.letters) == ([], [])
    (event,) = parsed_events.users[user]
    assert isinstance(event, UserEvent)
    assert event.title == title
    (parsed,) = parsed_launches.titles[title]
    assert isinstance(parsed, TitleLaunch)
    assert parsed.content.name == "Night Train"


def test_json_examples_are_valid_records() -> None:
    lines = [line for block in re.findall(r"```json\n(.*?)```", CONTRACTS, re.S) for line in block.splitlines()]
    records = [json.loads(line) for line in lines]
    (launch,) = (one for one in records if "genres" in one)
    assert parse_launches([_message(TITLE_LAUNCHES, 0, launch["title"], json.dumps(launch))]).letters == []
    (withdrawal,) = (one for one in records if set(one) == {"title"})
    assert parse_withdrawals([_message(TITLE_WITHDRAWALS, 0, "", json.dumps(withdrawal))]).letters == []
    (request,) = (one for one in records if set(one) == {"user"})
    assert parse_requests([_message(ERASURE_REQUESTS, 0, request["user"], json.dumps(request))]).letters == []
    user, _, value = code_block(CONTRACTS, "kafka-console-producer", "sh").split("'")[1].partition("|")
    assert parse_events([_message(USER_EVENTS, 0, user, value)]).letters == []


def _message(topic: str, offset: int, name: str, value: str) -> Message:
    return Message(topic, 0, offset, int(time.time() * 1000), name.encode(), value.encode())


def test_reader_examples_return_written_list(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    user = uuid.uuid4().hex
    first, second, withdrawn = (uuid.uuid4().hex for _ in range(3))
    lists = {0: [first, withdrawn, second], 3: [second, first]}
    sink = RedisSink(redis_url).build_part("predictions", "0", None)
    sink.write_batch([[Prediction(user, lists, 1, (0, 0, 1, 0), 1, 0)]])
    client = Redis.from_url(redis_url)
    client.sadd(withdrawn_key(), withdrawn)
    scope: dict[str, Any] = {}
    exec(code_block(CONTRACTS, "def recommended").replace(LOCAL_REDIS, redis_url).replace(EXAMPLE_USER, user), scope)
    assert capsys.readouterr().out == f"{[first, second]}\n"
    decoding = Redis.from_url(redis_url, decode_responses=True)
    for events_since in (0, 2, 3, 100):
        assert scope["recommended"](decoding, user, events_since) == read(client, user, events_since)
    exec(code_block(README, "import read").replace(LOCAL_REDIS, redis_url).replace('"42"', f'"{user}"'), {})
    assert capsys.readouterr().out == f"{[first, second]}\n"
    client.srem(withdrawn_key(), withdrawn)
    client.delete(key(user))


def test_list_fields_are_documented(redis_url: str) -> None:
    user = uuid.uuid4().hex
    sink = RedisSink(redis_url).build_part("predictions", "0", None)
    sink.write_batch([[Prediction(user, {0: [], 3: [], 10: []}, 1, (0, 0, 1, 0), 1, 0)]])
    written: Any = Redis.from_url(redis_url, decode_responses=True).hgetall(key(user))
    section = CONTRACTS.partition("## Lists in Redis")[2].partition("\n## ")[0]
    assert set(written) <= set(re.findall(r"`([\w:]+)`", section))


def test_feast_example_returns_recent_titles(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    example = code_block(README, "FeatureStore(")
    assert len(example.replace("\n\n", "\n").strip().splitlines()) <= 5
    user, title = uuid.uuid4().hex, uuid.uuid4().hex
    store = open_store(redis_url, tmp_path / ".premiere" / "feast")
    write_user_activity(store, [user_row(user, 0, 1, [title])])
    write_title_semantics(store, [title_row(title)])
    exec(example.replace('"42"', f'"{user}"').replace('"318"', f'"{title}"'), {})
    found = eval(capsys.readouterr().out)
    assert found["recent_titles"] == [[title]]
    assert found["name"] == ["Amélie 🎬"]


def test_compression_of_dead_letters_is_documented() -> None:
    page = (ROOT / "docs" / "contracts.md").read_text().partition("\n## Dead letters\n")[2]
    assert producer_config({})["compression.type"].upper() in page
