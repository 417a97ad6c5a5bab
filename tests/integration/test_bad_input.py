"""On a real broker, each record of a producer is processed or becomes a dead letter."""

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
from infra.operate.dead_letters import DeadLetter
from infra.topics import create_topics
from streaming.flows import features
from streaming.kafka.dead_letters import MAX_KEPT_BYTES
from streaming.kafka.sink import KafkaSink
from streaming.kafka.source import KafkaSource, read_all
from streaming.records import MAX_LAUNCH_BYTES, MIN_TIME_MS, Activity, Title, decode_log
from streaming.topics import ACTIVITY, DEAD_LETTERS, TITLE_LAUNCHES, USER_EVENTS, topics
from tests.support.features import FeaturesRun
from tests.support.titles import TitlesRun

NOW: Final = int(time.time() * 1000)
HOUR_MS: Final = 3_600_000
MAX_BATCH_BYTES: Final = 1_048_588  # of a record batch, by Kafka's default settings


class Sent(NamedTuple):
    """A record, and the reason type of its dead letter; None if it must be processed."""

    key: bytes | None
    value: bytes | None
    reason: str | None = None


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
    Sent(b"u", event("u", ts=MIN_TIME_MS - 1), "too old"),
    Sent(b"clock", event("clock", ts=NOW + 24 * HOUR_MS), "in the future"),
    Sent(b"clock", event("clock", title="after")),  # the next event of this user is valid
    Sent(b"u1", event("u1", title="beside")),  # the other users are unaffected
    Sent(b"u", event("u", action="yawn"), "unknown action"),
    Sent(b"u", event("u", rating=6), "out of range"),
    Sent(b"somebody", event("u"), "key"),
    Sent(None, event("u"), "key"),
    Sent(b"u", None, "tombstone"),
    Sent(b"u", event("u", x="x" * (MAX_BATCH_BYTES - 200)), "too large"),  # the largest record that the topic accepts
    Sent(b"u2", event("u2", x="x" * (features.MAX_EVENT_BYTES - len(event("u2", x=""))))),  # the largest valid event
    Sent("🎬".encode(), event("🎬", title="é 🍿\n\u0000")),
    Sent(b"u3", event("u3", rating=None, event_id=None)),  # null in optional fields
    Sent(b"u4", event("u4", title="never launched")),
    Sent(b"u5", event("u5", event_id="a")),
    Sent(b"u5", event("u5", event_id="a")),  # a duplicate
    Sent(b"u5", event("u5")),  # without an event_id it is another event
]
PROCESSED: Final = {
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
    Sent(b"1", launch("1", ts=MIN_TIME_MS - 1), "too old"),
    Sent(b"1", launch("1", ts=NOW + 24 * HOUR_MS), "in the future"),
    Sent(b"1", launch("1", year=2**70), "out of range"),
    Sent(b"1", launch("1", genres=["g"] * 101), "out of range"),
    Sent(b"1", None, "tombstone"),
    Sent(b"2", launch("2")),  # without any text
    Sent(b"3", launch("3", name="🎬", overview="\u0000é", year=None, ts=None, text={})),
    Sent(b"4", launch("4", name="Big", more="x" * 1_000_000)),
    Sent(b"1", launch("1", name="Alien")),  # an unchanged launch
    Sent(b"1", launch("1", name="Aliens")),
]


@pytest.fixture
def config(start_broker: Callable[[Path], AbstractContextManager[str]], tmp_path: Path) -> Iterator[dict[str, str]]:
    """A broker that no other test uses, with the project's topics."""
    with start_broker(tmp_path / "kafka") as address:
        create_topics({"bootstrap.servers": address}, topics())
        yield {"bootstrap.servers": address}


def send(config: dict[str, str], topic: str, records: Sequence[Sent]) -> list[tuple[int, int]]:
    """Send the records. Returns their positions."""
    positions: dict[int, tuple[int, int]] = {}
    limits = {"message.max.bytes": 2_000_000, "partitioner": "murmur2_random"}
    producer = Producer({**config, **limits, "enable.idempotence": True})
    for number, record in enumerate(records):

        def delivered(error: Any, message: Any, number: int = number) -> None:
            assert error is None, error
            positions[number] = message.partition(), message.offset()

        producer.produce(topic, record.value, record.key, on_delivery=delivered)
    assert producer.flush(30) == 0
    return [positions[number] for number in range(len(records))]


def check_letters(
    config: dict[str, str], topic: str, sent: Sequence[Sent], positions: Sequence[tuple[int, int]]
) -> None:
    """Check that exactly the invalid records have a dead letter, and that its content is right."""
    letters = [DeadLetter.parse(message) for message in read_all(config, DEAD_LETTERS)]
    found = {(letter.source_partition, letter.source_offset): letter for letter in letters}
    invalid = {position: record for position, record in zip(positions, sent, strict=True) if record.reason}
    found_reasons = {position: letter.reason_type for position, letter in found.items()}
    assert found_reasons == {position: record.reason for position, record in invalid.items()}
    assert len(letters) == len(invalid)
    for position, record in invalid.items():
        letter, value = found[position], record.value or b""
        assert (letter.source_topic, letter.key, letter.value) == (topic, record.key, value[:MAX_KEPT_BYTES])
        assert (letter.length, letter.sha256) == (len(value), sha256(value).hexdigest())


def test_invalid_events_become_letters_and_valid_ones_are_processed(config: dict[str, str]) -> None:
    positions = send(config, USER_EVENTS, EVENTS)
    run = FeaturesRun()
    source = KafkaSource(config, USER_EVENTS, "features", tail=False)
    run.activity, run.letters = KafkaSink(config), KafkaSink(config)  # type: ignore[assignment]
    run_main(run.flow(source))
    check_letters(config, USER_EVENTS, EVENTS, positions)
    log = [decode_log(message.value or b"") for message in read_all(config, ACTIVITY)]
    processed: dict[str, list[str]] = {}
    for activity in (record for record in log if isinstance(record, Activity)):
        processed.setdefault(activity.user, []).extend(activity.titles[new.index] for new in activity.new)
        assert set(activity.times) == {NOW}
    assert processed == PROCESSED
    assert len(run.rows()) == sum(len(titles) for titles in PROCESSED.values())


def test_invalid_launches_become_letters_and_valid_ones_titles(config: dict[str, str]) -> None:
    positions = send(config, TITLE_LAUNCHES, LAUNCHES)
    run = TitlesRun(load_encoder())
    source = KafkaSource(config, TITLE_LAUNCHES, "titles", tail=False)
    run.activity, run.letters = KafkaSink(config), KafkaSink(config)  # type: ignore[assignment]
    run_main(run.flow(source))
    check_letters(config, TITLE_LAUNCHES, LAUNCHES, positions)
    log = [decode_log(message.value or b"") for message in read_all(config, ACTIVITY)]
    known = [(title.title, title.name, bool(title.semantic)) for title in log if isinstance(title, Title)]
    assert sorted(known[:-1]) == [("1", "Alien", True), ("2", "", False), ("3", "🎬", True), ("4", "Big", True)]
    assert known[-1][:2] == ("1", "Aliens")
    assert MAX_LAUNCH_BYTES >= 1_048_576
