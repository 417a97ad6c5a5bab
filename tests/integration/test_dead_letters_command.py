"""Dead letters are counted by kind, shown, and sent again once each, on a real broker."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from infra.cli.main import app
from infra.operate.dead_letters import FOREIGN, Letter, _note, listing, replay
from infra.topics import create
from streaming.flows.features import sort
from streaming.kafka.dead_letters import KEPT, dead_letter, forgotten_note
from streaming.kafka.sink import Outgoing
from streaming.kafka.source import Message, read_all
from streaming.topics import DEAD_LETTERS, TITLE_LAUNCHES, USER_EVENTS, topics
from tests.support.kafka import OwnKafka

BAD = b'{"user":"u","title":"t","ts":1,"action":"yawn"}'


@pytest.fixture
def config(own_kafka: OwnKafka, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A broker of its own, for all dead letters lie in one topic."""
    with own_kafka(tmp_path / "kafka") as address:
        create({"bootstrap.servers": address}, topics())
        yield {"bootstrap.servers": address}


def message(offset: int, value: bytes | None = BAD, topic: str = USER_EVENTS, key: bytes | None = b"u") -> Message:
    return Message(topic, 0, offset, 1_000, key, value)


def write(config: dict[str, str], records: Sequence[Outgoing]) -> None:
    producer = Producer(config)
    for record in records:
        producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
    assert producer.flush(20) == 0


def letters(config: dict[str, str], *told: tuple[Message, str]) -> None:
    write(config, [dead_letter(what, reason) for what, reason in told])


def run(config: dict[str, str], *words: str, given: str | None = None) -> Any:
    env = {"PREMIERE_BOOTSTRAP_SERVERS": config["bootstrap.servers"], "COLUMNS": "150"}
    return CliRunner().invoke(app, ["dead-letters", *words], env=env, input=given)


def test_letters_are_counted_by_kind_with_the_newest_and_doubles_apart(config: dict[str, str]) -> None:
    letters(config, (message(0, b"{"), "not JSON: a"), (message(1), "unknown action: yawn"))
    letters(config, (message(1), "unknown action: yawn"), (message(2, b"}"), "not JSON: b"))
    write(config, [Outgoing(DEAD_LETTERS, b"x", b"y")])
    for strange in (b"no json", b'["x"]', b"[-5, 0, 99999999]"):
        write(config, [Outgoing(DEAD_LETTERS, None, strange, [("replay", b"?")])])
    found = listing(config, last=2)
    assert {name: (kind.letters, kind.doubles) for name, kind in found.kinds.items()} == {
        "not JSON": (2, 0), "unknown action": (1, 1), FOREIGN: (1, 0),
    }  # fmt: skip
    newest = found.kinds["not JSON"].newest
    assert newest is not None
    assert (newest.where, newest.reason, newest.value) == ("user-events-0-2", "not JSON: b", b"}")
    assert [letter.offset for letter in found.last] == [1, 2]
    only = listing(config, "unknown action", last=5)
    assert list(only.kinds) == ["unknown action"]
    assert [letter.offset for letter in only.last] == [1]


def test_the_command_shows_a_table_single_letters_and_json(config: dict[str, str]) -> None:
    letters(config, (message(7, b"\xff[bold]", key=None), "not JSON: [bold] no"))
    table = run(config, "--last", "3")
    assert table.exit_code == 0, table.output
    assert "not JSON" in table.output
    assert "user-events-0-7" in table.output
    assert "[bold]" in table.output
    found = json.loads(run(config, "--last", "3", "--json").output)
    assert found["kinds"]["not JSON"]["letters"] == 1
    assert found["letters"][0]["value"] == "\\xff[bold]"
    assert found["letters"][0]["key"] is None


def test_a_topic_without_letters_says_so(config: dict[str, str]) -> None:
    assert run(config).output == "No dead letters.\n"
    assert run(config, "--reason", "key").output == "No dead letters of the kind 'key'.\n"
    assert run(config, "--replay").output == "There is no letter to send.\n"


def test_letters_go_to_their_topic_as_they_came_and_only_once(config: dict[str, str]) -> None:
    huge = message(3, b"x" * (KEPT + 1))
    letters(config, (message(0), "unknown action: yawn"), (message(0), "unknown action: yawn"))
    letters(config, (huge, "too large: x"), (message(4, None), "tombstone: x"))
    letters(config, (message(5, b"{", TITLE_LAUNCHES, b"7"), "not JSON: x"))
    assert "Send up to 4 letters" in run(config, "--replay", given="n\n").output
    assert list(read_all(config, USER_EVENTS)) == []
    done = run(config, "--replay", "--yes")
    assert done.exit_code == 0, done.output
    assert "Sent 2 letters again; not sent: 1 empty, 1 not kept whole." in done.output
    (event,), (launch,) = read_all(config, USER_EVENTS), read_all(config, TITLE_LAUNCHES)
    assert (event.key, event.value, event.headers) == (b"u", BAD, [("replayed-from", b"user-events-0-0")])
    assert (launch.key, launch.value) == (b"7", b"{")
    letters(config, (message(0), "unknown action: yawn"))  # a flow that went back writes it again
    assert "Sent 0 letters" in run(config, "--replay", "--yes").output
    assert len(list(read_all(config, USER_EVENTS))) == 1
    kinds = listing(config).kinds
    assert [(kinds[name].letters, kinds[name].replayed) for name in ("unknown action", "not JSON", "too large")] == [
        (1, 1), (1, 1), (1, 0),
    ]  # fmt: skip


def test_one_kind_can_be_sent_alone_and_the_others_later(config: dict[str, str]) -> None:
    letters(
        config, (message(0, b"{"), "not JSON: x"), (message(1), "unknown action: x"), (message(2, b"["), "not JSON: x")
    )
    assert replay(config, 3, "unknown action").sent == 1
    later = replay(config, 3)
    assert (later.sent, later.impossible) == (2, {"sent before": 1})
    assert sorted(m.value or b"" for m in read_all(config, USER_EVENTS)) == sorted([b"{", BAD, b"["])


def test_letters_of_an_interrupted_replay_are_in_doubt_until_they_are_asked_for(config: dict[str, str]) -> None:
    letters(config, (message(0), "unknown action: x"), (message(1), "unknown action: x"))
    first = next(Letter.of(m) for m in read_all(config, DEAD_LETTERS))
    write(config, [_note([first], b"begun")])
    assert listing(config).kinds["unknown action"].in_doubt == 1
    said = run(config, "--replay", "--yes").output
    assert "Sent 1 letters again; not sent: 1 in doubt." in said
    assert "`--again` sends them" in said
    assert "Sent 1 letters again" in run(config, "--replay", "--yes", "--again").output
    kind = listing(config).kinds["unknown action"]
    assert (kind.letters, kind.replayed, kind.in_doubt) == (2, 2, 0)
    assert "all that are there were sent before" in run(config, "--replay", "--again").output


def test_what_still_cannot_be_used_is_a_new_letter_that_tells_where_it_first_lay(config: dict[str, str]) -> None:
    letters(config, (message(9), "unknown action: x"))
    replay(config, 1)
    (came,) = read_all(config, USER_EVENTS)
    (again,) = sort([came]).rejected
    assert dict(again.headers)["replayed-from"] == b"user-events-0-9"
    write(config, [again])
    assert listing(config).kinds["unknown action"].letters == 2
    assert replay(config, 100).sent == 1


def test_what_a_viewer_sent_who_asked_later_to_be_forgotten_is_not_sent_again(config: dict[str, str]) -> None:
    other = message(1, key=b"v")
    letters(config, (message(0), "unknown action: x"), (other, "unknown action: x"))
    letters(config, (message(5, b"{", TITLE_LAUNCHES, b"u"), "not JSON: x"))  # a title of the same name
    write(config, [forgotten_note(message(2, b'{"user":"u","forget":true}'))])
    letters(config, (message(3), "unknown action: x"))  # the viewer is back
    assert list(listing(config).kinds) == ["unknown action", "not JSON"]
    sent = replay(config, 100)
    assert (sent.sent, sent.impossible) == (3, {"of forgotten viewers": 1})
    assert [(m.key, m.headers[0][1]) for m in read_all(config, USER_EVENTS) if m.key == b"u"] == [
        (b"u", b"user-events-0-3")
    ]
    assert [m.key for m in read_all(config, TITLE_LAUNCHES)] == [b"u"]
