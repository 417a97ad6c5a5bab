"""Fuzz test: sends random and mutated messages to all public topics and checks that each is counted exactly once.

`make fuzz` sends 100,000 messages (ARGS="--messages N --seed S"): valid events and launches, mutated bytes, fields of
wrong type and size, invalid keys, erasure requests, withdrawals and random bytes. Each event must be accepted, dropped
as a duplicate or because its user was erased, or written as a dead letter with topic, partition, offset and reason.
Each other message must be handled or written as a dead letter. Every accepted event must be learned, no flow may crash,
and a new user must be served afterwards.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from confluent_kafka import Producer

from infra.local.session import Session, run_session
from infra.monitor.lag import FLOW_TOPICS
from infra.monitor.status import Status, read_status
from streaming.kafka.client import producer_config
from streaming.kafka.source import read_all
from streaming.records import Event, to_json
from streaming.stores.list_client import read
from streaming.topics import DEAD_LETTERS, ERASURE_REQUESTS, TITLE_LAUNCHES, TITLE_WITHDRAWALS, USER_EVENTS
from tests.support.chaos import STALL_TIMEOUT_S, Log, session_settings

START_MS: Final = 1_700_000_000_000
USER_COUNT: Final = 200
TITLE_COUNT: Final = 300
INVALID_VALUES: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 1e308, 2**63, -(2**70), "", " ", "\x00", "😀" * 90, "x" * 257, [], {}, [[]], {"a": None},
)  # fmt: skip
TITLE_WORDS: Final = ("train", "heist", "ocean", "ghost", "wedding", "\u202e", "é", "映画", "🎬", "<b>", "'; --", "\\")
INVALID_JSON: Final = (
    b"",
    b"{",
    b"null",
    b"[]",
    b'"x"',
    b"\xff\xfe",
    b"{}" * 9,
    b"[" * 4000,
    b'{"user":' * 600,
    b"NaN",
    b"0",
)


class FuzzMessage(NamedTuple):
    """A message to send."""

    topic: str
    key: bytes | None
    value: bytes | None


def fuzz_messages(count: int, seed: int) -> Iterator[FuzzMessage]:
    """`count` messages, which depend only on the seed."""
    source = random.Random(seed)
    for number in range(count):
        topic = TITLE_LAUNCHES if number < TITLE_COUNT else source.choices(list(SHARES), list(SHARES.values()))[0]
        fields = FIELDS[topic](source)
        key = str(fields.get("user", fields.get("title"))).encode()
        yield (
            _mutate_message(source, topic, key, fields)
            if source.random() < 0.95
            else FuzzMessage(topic, key, _json(fields))
        )


def _event(source: random.Random) -> dict[str, Any]:
    event: dict[str, Any] = {
        "user": f"user {source.randrange(USER_COUNT)}",
        "title": f"title {source.randrange(TITLE_COUNT)}",
        "ts": START_MS + source.randrange(10**9),
    }
    if source.random() < 0.3:
        event["rating"] = source.randrange(11) / 2
    if source.random() < 0.2:
        event["event_id"] = str(source.randrange(500))
    return event


def _launch(source: random.Random) -> dict[str, Any]:
    words = [source.choice(TITLE_WORDS) for _ in range(source.randrange(1, 20))]
    return {"title": f"title {source.randrange(TITLE_COUNT)}", "name": " ".join(words[:3]), "overview": " ".join(words)}


def _erasure_request(source: random.Random) -> dict[str, Any]:
    return {"user": f"user {source.randrange(USER_COUNT)}"}


def _withdrawal(source: random.Random) -> dict[str, Any]:
    return {"title": f"title {source.randrange(TITLE_COUNT)}"}


SHARES: Final = {USER_EVENTS: 0.8, ERASURE_REQUESTS: 0.03, TITLE_LAUNCHES: 0.14, TITLE_WITHDRAWALS: 0.03}
FIELDS: Final[dict[str, Callable[[random.Random], dict[str, Any]]]] = {
    USER_EVENTS: _event,
    ERASURE_REQUESTS: _erasure_request,
    TITLE_LAUNCHES: _launch,
    TITLE_WITHDRAWALS: _withdrawal,
}


def _mutate_message(source: random.Random, topic: str, key: bytes, fields: dict[str, Any]) -> FuzzMessage:
    """Apply one random mutation. Some results are still valid."""
    way = source.randrange(9)
    if way == 0:
        return FuzzMessage(topic, source.choice([None, b"", b"other", b"\xff" * 70_000, key]), _json(fields))
    if way == 1:
        return FuzzMessage(topic, key, source.choice([None, source.randbytes(source.randrange(200)), *INVALID_JSON]))
    if way == 2:
        fields[source.choice([*fields, "action", "rating", "event_id", "genres", "year", "text"])] = source.choice(
            INVALID_VALUES
        )
    if way == 3:
        del fields[source.choice(list(fields))]
    if way == 4:
        fields["ts"] = source.choice([-(10**18), 10**18, -2_208_988_800_001, 4 * 10**12])
    if way == 5:
        fields |= {"unknown": {"deep": [INVALID_VALUES]}, "erase": source.choice([True, False, 1, "yes"])}
    if way == 6:
        fields["overview"] = fields["extra"] = "y" * source.choice([1000, 70_000])
    value = bytearray(_json(fields))
    if way >= 7:
        _mutate_bytes(source, value)
    return FuzzMessage(topic, key, bytes(value))


def _mutate_bytes(source: random.Random, value: bytearray) -> None:
    """Change, delete or repeat some bytes."""
    for _ in range(source.randrange(1, 4)):
        at, to = sorted(source.randrange(len(value) + 1) for _ in range(2))
        mutate: Callable[[], object] = source.choice(
            [
                lambda at=at: value.__setitem__(slice(at, at + 1), source.randbytes(1)),  # type: ignore[misc]
                lambda at=at, to=to: value.__delitem__(slice(at, to)),  # type: ignore[misc]
                lambda at=at, to=to: value.__setitem__(slice(at, at), value[at:to]),  # type: ignore[misc]
            ]
        )
        mutate()


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def fuzz(session: Session, count: int, seed: int, log: Log) -> dict[str, Any]:
    """Send messages, wait until all are processed, and compare the counts. Raises AssertionError if they differ."""
    pids, sent = session.flows.pids(), Counter[str]()
    producer = Producer(producer_config(session.settings.kafka_config()))
    for number, (topic, key, value) in enumerate(fuzz_messages(count, seed), 1):
        producer.produce(topic, value, key)
        sent[topic] += 1
        if number % 10_000 == 0:
            assert producer.flush(60) == 0
            log(f"{number:,} of {count:,} sent")
    assert producer.flush(60) == 0
    status = _wait_until_processed(session, log)
    letters = Counter(topic for topic, *_ in _dead_letters(session))
    features, titles = status.scrape("features"), status.scrape("titles")
    erased, accepted = features.value("premiere_erased_events_total"), features.value("premiere_events_total")
    erasures = features.value("premiere_user_erasures_total")
    withdrawals = titles.value("premiere_title_withdrawals_total")
    launches = sum(titles.by_label("premiere_launches_total", "outcome").values())
    scrapes = {"features": features, "titles": titles}
    found = {
        "sent": dict(sent), "dead_letters": dict(letters), "accepted": accepted, "erased": erased,
        "user_erasures": erasures, "withdrawals": withdrawals,
        "duplicates": status.duplicates, "launches": launches, "learned": status.learned,
        "reasons": {flow: one.by_label("premiere_dead_letters_total", "reason") for flow, one in scrapes.items()},
    }  # fmt: skip
    handled = {"features": accepted + status.duplicates + erased + erasures, "titles": launches + withdrawals}
    for flow, scraped in scrapes.items():
        invalid = float(sum(letters[topic] for topic in FLOW_TOPICS[flow]))
        invalid += scraped.value("premiere_dead_letters_dropped_total")
        assert handled[flow] + invalid == sum(sent[topic] for topic in FLOW_TOPICS[flow]), found
    assert status.learned == accepted, found
    assert session.flows.pids() == pids, "a flow crashed"
    _check_new_user_is_served(session, producer)
    return found


def _dead_letters(session: Session) -> set[tuple[str, bytes, bytes]]:
    """Topic, partition and offset of each message with a dead letter; every dead letter must have a reason."""
    found = set()
    for message in read_all(session.settings.kafka_config(), DEAD_LETTERS):
        headers = dict(message.headers)
        assert headers["reason"], message
        found.add((headers["topic"].decode(), headers["partition"], headers["offset"]))
    return found


def _wait_until_processed(session: Session, log: Log) -> Status:
    """Wait until both flows have read all messages and the learner has learned all accepted events."""
    best, since, logged = -1.0, time.monotonic(), 0.0
    while True:
        session.flows.check()
        status = read_status(session.settings, session.lags)
        lag = sum(status.lag_records(flow, topic) for flow in ("features", "titles") for topic in FLOW_TOPICS[flow])
        accepted = status.scrape("features").value("premiere_events_total")
        if lag == 0 and status.learned >= accepted > 0:
            return status
        if (done := status.learned + accepted - lag) > best:
            best, since = done, time.monotonic()
        progress = f"lag {lag:,} messages, {status.learned:,} of {accepted:,.0f} events learned"
        assert time.monotonic() - since < STALL_TIMEOUT_S, progress
        if time.monotonic() - logged > 5:
            logged = time.monotonic()
            log(progress)
        time.sleep(0.5)


def _check_new_user_is_served(session: Session, producer: Producer) -> None:
    """Send an event of a new user and wait for its list."""
    event = Event(user="new-user", title="title 1", ts=START_MS)
    producer.produce(USER_EVENTS, to_json(event), event.user.encode())
    assert producer.flush(60) == 0
    deadline = time.monotonic() + STALL_TIMEOUT_S
    while not session.redis.exists("premiere:user:new-user"):
        assert time.monotonic() < deadline, "the new user has no list"
        time.sleep(0.2)
    assert read(session.redis, "new-user")


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 if all counts are right."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--messages", type=int, default=100_000)
    parse.add_argument("--seed", type=int, default=0)
    options = parse.parse_args(arguments)
    started = time.monotonic()

    def log(message: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {message}", flush=True)

    with (
        tempfile.TemporaryDirectory(prefix="premiere-fuzz-") as folder,
        run_session(session_settings(Path(folder))) as session,
    ):
        print(json.dumps(fuzz(session, options.messages, options.seed, log), indent=1))
    log("No flow crashed, and every message was counted once.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
