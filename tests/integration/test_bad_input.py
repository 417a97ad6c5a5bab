"""Whatever a producer sends to a real broker, each record is an event or a launch, or leaves its dead letter there."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from bytewax.testing import run_main
from confluent_kafka import Producer

from features.text_encoders import load_encoder
from infra.operate.dead_letters import Letter
from infra.topics import create
from streaming.flows import features, titles
from streaming.kafka.dead_letters import KEPT
from streaming.kafka.sink import KafkaSink
from streaming.kafka.source import KafkaSource, read_all
from streaming.records import FLOOR_MS, Activity, Title, decode_log
from streaming.topics import ACTIVITY, DEAD_LETTERS, TITLE_LAUNCHES, USER_EVENTS, topics
from tests.support.features import Run as Features
from tests.support.titles import Run as Titles

NOW: Final = int(time.time() * 1000)
HOUR: Final = 3_600_000  # ms
BROKERS_LIMIT: Final = 1_048_588  # bytes of a record batch that Kafka takes unless told otherwise


class Sent(NamedTuple):
    """A record, and the kind of dead letter that it must become; None: it must be used."""

    key: bytes | None
    value: bytes | None
    kind: str | None = None


def event(user: str, **fields: Any) -> bytes:
    return json.dumps({"user": user, "title": "t", "ts": NOW, **fields}, ensure_ascii=False).encode()


EVENTS: Final = [
    Sent(b"u0", event("u0", title="before")),
    Sent(b"u", b"no json at all", "not JSON"),
    Sent(b"u", b"\xff\xfe\x00", "not JSON"),
    Sent(b"u", b"", "not JSON"),
    Sent(b"u", event("u")[:-1], "not JSON"),
    Sent(b"u", b"null", "wrong type"),
    Sent(b"u", event("u", ts="now"), "wrong type"),
    Sent(b"u", event("u", ts=1.5), "wrong type"),
    Sent(b"u", event("u", title=None), "wrong type"),
    Sent(b"u", event("u", title=7), "wrong type"),
    Sent(b"u", event("u", title="t" * 257), "wrong type"),
    Sent(b"u", b'{"user": "u", "ts": 1}', "missing field"),
    Sent(b"u", b"{}", "missing field"),
    Sent(b"u", event("u", ts=FLOOR_MS - 1), "too old"),
    Sent(b"clock", event("clock", ts=NOW + 24 * HOUR), "in the future"),
    Sent(b"clock", event("clock", title="after")),  # its own next event counts
    Sent(b"u1", event("u1", title="beside")),  # and nobody else's time has moved
    Sent(b"u", event("u", action="yawn"), "unknown action"),
    Sent(b"u", event("u", rating=6), "out of range"),
    Sent(b"somebody", event("u"), "key"),
    Sent(None, event("u"), "key"),
    Sent(b"u", None, "tombstone"),
    Sent(b"u", event("u", x="x" * (BROKERS_LIMIT - 200)), "too large"),  # all that the topic takes
    Sent(b"u2", event("u2", x="x" * (features.LARGEST - len(event("u2", x=""))))),  # all that an event may be
    Sent("🎬".encode(), event("🎬", title="é 🍿\n\u0000")),
    Sent(b"u3", event("u3", rating=None, event_id=None)),  # nulls where nothing is needed
    Sent(b"u4", event("u4", title="never launched")),
    Sent(b"u5", event("u5", event_id="a")),
    Sent(b"u5", event("u5", event_id="a")),  # sent twice, used once
    Sent(b"u5", event("u5")),  # the same without an id is an event of its own
]
USED: Final = {
    "u0": ["before"], "clock": ["after"], "u1": ["beside"], "u2": ["t"], "🎬": ["é 🍿\n\u0000"], "u3": ["t"],
    "u4": ["never launched"], "u5": ["t", "t"],
}  # fmt: skip


def launch(title: str, **fields: Any) -> bytes:
    return json.dumps({"title": title, **fields}, ensure_ascii=False).encode()


LAUNCHES: Final = [
    Sent(b"1", launch("1", name="Alien")),
    Sent(b"1", b"{", "not JSON"),
    Sent(b"1", b"\xff", "not JSON"),
    Sent(b"1", launch("1", name=None), "wrong type"),
    Sent(b"1", launch("1", genres=[None]), "wrong type"),
    Sent(b"1", launch("1", overview="x" * 65_537), "wrong type"),
    Sent(b"1", b'{"name": "x"}', "missing field"),
    Sent(b"1", launch("1", ts=FLOOR_MS - 1), "too old"),
    Sent(b"1", launch("1", ts=NOW + 24 * HOUR), "in the future"),
    Sent(b"1", launch("1", year=2**70), "out of range"),
    Sent(b"1", launch("1", genres=["g"] * 101), "out of range"),
    Sent(b"1", None, "tombstone"),
    Sent(b"2", launch("2")),  # without any text
    Sent(b"3", launch("3", name="🎬", overview="\u0000é", year=None, ts=None, text={})),
    Sent(b"4", launch("4", name="Big", more="x" * 1_000_000)),
    Sent(b"1", launch("1", name="Alien")),  # the same again changes nothing
    Sent(b"1", launch("1", name="Aliens")),
]


@pytest.fixture
def config(own_kafka: Callable[[Path], AbstractContextManager[str]], tmp_path: Path) -> Iterator[dict[str, str]]:
    """A broker of its own, with the project's topics."""
    with own_kafka(tmp_path / "kafka") as address:
        create({"bootstrap.servers": address}, topics())
        yield {"bootstrap.servers": address}


def send(config: dict[str, str], topic: str, records: Sequence[Sent]) -> list[tuple[int, int]]:
    """Where each record came to lie."""
    places: dict[int, tuple[int, int]] = {}
    limits = {"message.max.bytes": 2_000_000, "partitioner": "murmur2_random"}
    producer = Producer({**config, **limits, "enable.idempotence": True})
    for number, record in enumerate(records):

        def lies(error: Any, message: Any, number: int = number) -> None:
            assert error is None, error
            places[number] = message.partition(), message.offset()

        producer.produce(topic, record.value, record.key, on_delivery=lies)
    assert producer.flush(30) == 0
    return [places[number] for number in range(len(records))]


def check_letters(config: dict[str, str], topic: str, sent: Sequence[Sent], places: Sequence[tuple[int, int]]) -> None:
    """Each record that is to have one has its letter, with all that belongs to it, and no other has."""
    letters = [Letter.of(message) for message in read_all(config, DEAD_LETTERS)]
    found = {(letter.partition, letter.offset): letter for letter in letters}
    bad = {place: record for place, record in zip(places, sent, strict=True) if record.kind}
    assert {place: letter.kind for place, letter in found.items()} == {p: record.kind for p, record in bad.items()}
    assert len(letters) == len(bad)
    for place, record in bad.items():
        letter, value = found[place], record.value or b""
        assert (letter.topic, letter.key, letter.value) == (topic, record.key, value[:KEPT])
        assert (letter.length, letter.sha256) == (len(value), sha256(value).hexdigest())


def test_every_bad_event_leaves_its_letter_and_every_good_one_is_used(config: dict[str, str]) -> None:
    places = send(config, USER_EVENTS, EVENTS)
    run = Features()
    source = KafkaSource(config, USER_EVENTS, "features", tail=False)
    run.activity, run.dead = KafkaSink(config), KafkaSink(config)  # type: ignore[assignment]
    run_main(run.flow(source))
    check_letters(config, USER_EVENTS, EVENTS, places)
    log = [decode_log(message.value or b"") for message in read_all(config, ACTIVITY)]
    used: dict[str, list[str]] = {}
    for activity in (record for record in log if isinstance(record, Activity)):
        used.setdefault(activity.user, []).extend(activity.titles[new.index] for new in activity.new)
        assert set(activity.times) == {NOW}
    assert used == USED
    assert len(run.rows()) == sum(len(titles) for titles in USED.values())


def test_every_bad_launch_leaves_its_letter_and_every_good_one_is_a_title(config: dict[str, str]) -> None:
    places = send(config, TITLE_LAUNCHES, LAUNCHES)
    run = Titles(load_encoder())
    source = KafkaSource(config, TITLE_LAUNCHES, "titles", tail=False)
    run.activity, run.dead = KafkaSink(config), KafkaSink(config)  # type: ignore[assignment]
    run_main(run.flow(source))
    check_letters(config, TITLE_LAUNCHES, LAUNCHES, places)
    log = [decode_log(message.value or b"") for message in read_all(config, ACTIVITY)]
    known = [(title.title, title.name, bool(title.semantic)) for title in log if isinstance(title, Title)]
    assert sorted(known[:-1]) == [("1", "Alien", True), ("2", "", False), ("3", "🎬", True), ("4", "Big", True)]
    assert known[-1][:2] == ("1", "Aliens")
    assert titles.LARGEST >= 1_048_576
