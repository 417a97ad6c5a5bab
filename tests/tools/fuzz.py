"""Random and mutated messages into both public topics; then every flow lives, and the counts add up.

`make fuzz` sends 100,000 (ARGS="--messages N --seed S"): good events and launches, the same with bytes flipped, cut,
repeated or exchanged, fields of every wrong type and size, odd keys, requests to forget, plain noise. Each message must
be counted exactly once: taken, dropped as a double, a request to forget, or a dead letter with its topic, partition,
offset and reason; what was taken must be learned; and a viewer who acts afterwards must be served.
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

from infra.local.session import Session, running
from infra.monitor.status import Status, look
from streaming.kafka.client import producing
from streaming.kafka.dead_letters import FORGOTTEN
from streaming.kafka.source import read_all
from streaming.records import Event, to_json
from streaming.stores.redis_lists import read
from streaming.topics import DEAD_LETTERS, TITLE_LAUNCHES, USER_EVENTS
from tests.support.chaos import PATIENCE, Say, settings

NOW_MS: Final = 1_700_000_000_000
USERS: Final = 200
TITLES: Final = 300
ODD: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 1e308, 2**63, -(2**70), "", " ", "\x00", "😀" * 90, "x" * 257, [], {}, [[]], {"a": None},
)  # fmt: skip
WORDS: Final = ("train", "heist", "ocean", "ghost", "wedding", "\u202e", "é", "映画", "🎬", "<b>", "'; --", "\\")
NOISE: Final = (b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"{}" * 9, b"[" * 4000, b'{"user":' * 600, b"NaN", b"0")


class Sent(NamedTuple):
    """A message on its way."""

    topic: str
    key: bytes | None
    value: bytes | None


def messages(count: int, seed: int) -> Iterator[Sent]:
    """So many, the same for the same seed."""
    source = random.Random(seed)
    for number in range(count):
        topic = TITLE_LAUNCHES if source.random() < 0.15 or number < TITLES else USER_EVENTS
        fields = _launch(source) if topic == TITLE_LAUNCHES else _event(source)
        key = str(fields.get("user", fields.get("title"))).encode()
        yield _spoilt(source, topic, key, fields) if source.random() < 0.95 else Sent(topic, key, _json(fields))


def _event(source: random.Random) -> dict[str, Any]:
    event: dict[str, Any] = {
        "user": f"user {source.randrange(USERS)}",
        "title": f"title {source.randrange(TITLES)}",
        "ts": NOW_MS + source.randrange(10**9),
    }
    if source.random() < 0.3:
        event["rating"] = source.randrange(11) / 2
    if source.random() < 0.2:
        event["event_id"] = str(source.randrange(500))
    return event


def _launch(source: random.Random) -> dict[str, Any]:
    words = [source.choice(WORDS) for _ in range(source.randrange(1, 20))]
    return {"title": f"title {source.randrange(TITLES)}", "name": " ".join(words[:3]), "overview": " ".join(words)}


def _spoilt(source: random.Random, topic: str, key: bytes, fields: dict[str, Any]) -> Sent:
    """One way of many to get it wrong; some do no harm."""
    way = source.randrange(9)
    if way == 0:
        return Sent(topic, source.choice([None, b"", b"other", b"\xff" * 70_000, key]), _json(fields))
    if way == 1:
        return Sent(topic, key, source.choice([None, source.randbytes(source.randrange(200)), *NOISE]))
    if way == 2:
        fields[source.choice([*fields, "action", "rating", "event_id", "genres", "year", "text"])] = source.choice(ODD)
    if way == 3:
        del fields[source.choice(list(fields))]
    if way == 4:
        fields["ts"] = source.choice([-(10**18), 10**18, -2_208_988_800_001, 4 * 10**12])
    if way == 5:
        fields |= {"unknown": {"deep": [ODD]}, "forget": source.choice([True, False, 1, "yes"])}
    if way == 6:
        fields["overview"] = fields["extra"] = "y" * source.choice([1000, 70_000])
    value = bytearray(_json(fields))
    if way >= 7:
        _damage(source, value)
    return Sent(topic, key, bytes(value))


def _damage(source: random.Random, value: bytearray) -> None:
    """Flip, cut or repeat some bytes."""
    for _ in range(source.randrange(1, 4)):
        at, to = sorted(source.randrange(len(value) + 1) for _ in range(2))
        harm: Callable[[], object] = source.choice(
            [
                lambda at=at: value.__setitem__(slice(at, at + 1), source.randbytes(1)),  # type: ignore[misc]
                lambda at=at, to=to: value.__delitem__(slice(at, to)),  # type: ignore[misc]
                lambda at=at, to=to: value.__setitem__(slice(at, at), value[at:to]),  # type: ignore[misc]
            ]
        )
        harm()


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def fuzz(loop: Session, count: int, seed: int, say: Say) -> dict[str, Any]:
    """Send, wait until all is read, and count. Raises AssertionError where something does not add up."""
    alive, sent = loop.flows.pids(), Counter[str]()
    producer = Producer(producing(loop.settings.kafka()))
    for number, (topic, key, value) in enumerate(messages(count, seed), 1):
        producer.produce(topic, value, key)
        sent[topic] += 1
        if number % 10_000 == 0:
            assert producer.flush(60) == 0
            say(f"{number:,} of {count:,} sent")
    assert producer.flush(60) == 0
    status = _read(loop, say)
    letters = Counter(topic for topic, *_ in _letters(loop))
    features, titles = status.page("features"), status.page("titles")
    forgotten, taken = features.value("premiere_forgotten_total"), features.value("premiere_events_total")
    launches = sum(titles.by("premiere_launches_total", "outcome").values())
    both = {"features": features, "titles": titles}
    found = {
        "sent": dict(sent), "dead letters": dict(letters), "taken": taken, "forgotten": forgotten,
        "doubles": status.duplicates, "launches": launches, "learned": status.learned,
        "reasons": {flow: page.by("premiere_dead_letters_total", "reason") for flow, page in both.items()},
    }  # fmt: skip
    assert taken + status.duplicates + forgotten + letters[USER_EVENTS] == sent[USER_EVENTS], found
    assert launches + letters[TITLE_LAUNCHES] == sent[TITLE_LAUNCHES], found
    assert status.learned == taken, found
    assert loop.flows.pids() == alive, "a flow died"
    _served(loop, producer)
    return found


def _letters(loop: Session) -> set[tuple[str, bytes, bytes]]:
    """Topic, partition and offset of each message that has a dead letter; every one has a reason."""
    found = set()
    for message in read_all(loop.settings.kafka(), DEAD_LETTERS):
        headers = dict(message.headers)
        if FORGOTTEN in headers:
            continue
        assert headers["reason"], message
        found.add((headers["topic"].decode(), headers["partition"], headers["offset"]))
    return found


def _read(loop: Session, say: Say) -> Status:
    """The loop once both flows have read everything and the learner has learned what they took."""
    best, since, told = -1.0, time.monotonic(), 0.0
    while True:
        loop.flows.check()
        status = look(loop.settings, loop.lags)
        waiting = status.waiting("features", USER_EVENTS) + status.waiting("titles", TITLE_LAUNCHES)
        taken = status.page("features").value("premiere_events_total")
        if waiting == 0 and status.learned >= taken > 0:
            return status
        if (done := status.learned + taken - waiting) > best:
            best, since = done, time.monotonic()
        assert time.monotonic() - since < PATIENCE, f"{waiting} messages wait, {status.learned} of {taken} learned"
        if time.monotonic() - told > 5:
            told = time.monotonic()
            say(f"{waiting:,} messages wait, {status.learned:,} of {taken:,.0f} events learned")
        time.sleep(0.5)


def _served(loop: Session, producer: Producer) -> None:
    """A viewer who acts now gets a list."""
    event = Event(user="afterwards", title="title 1", ts=NOW_MS)
    producer.produce(USER_EVENTS, to_json(event), event.user.encode())
    assert producer.flush(60) == 0
    give_up = time.monotonic() + PATIENCE
    while not loop.redis.exists("premiere:user:afterwards"):
        assert time.monotonic() < give_up, "nobody is served any more"
        time.sleep(0.2)
    assert read(loop.redis, "afterwards")


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 where everything adds up."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--messages", type=int, default=100_000)
    parse.add_argument("--seed", type=int, default=0)
    options = parse.parse_args(arguments)
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {what}", flush=True)

    with tempfile.TemporaryDirectory(prefix="premiere-fuzz-") as folder, running(settings(Path(folder))) as loop:
        print(json.dumps(fuzz(loop, options.messages, options.seed, say), indent=1))
    say("Every flow lived, and the counts add up.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
