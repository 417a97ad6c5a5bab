"""`premiere forget USER`: put the request into the log, see it take effect, say what it cannot reach and until when.

The request is a record like any other, so a producer may send it without this command; every flow acts on it at its
place in the log, and so does each replay. What takes effect at once is looked at here: Redis and the feature store.
"""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from confluent_kafka import KafkaException, Producer
from redis.exceptions import RedisError

from infra.errors import PremiereError, ServiceError, SettingsError
from infra.operate.compaction_schedule import DAY_MS, MARGIN, settled
from infra.settings import Settings
from infra.topics import identity
from streaming.kafka.client import producing
from streaming.stores import redis_lists
from streaming.topics import DEAD_LETTERS, MODEL_VERSIONS, TITLE_LAUNCHES, USER_EVENTS, topics

LONGEST: Final = 256  # characters of an id
DELIVERY: Final = 15  # seconds for the broker to take the request
LOOK: Final = 0.2  # seconds between two looks
WORD: Final = 5.0  # seconds between two words on progress

Say = Callable[[str], None]


def forget(settings: Settings, user: str, wait: float, say: Say) -> None:
    """Forget a viewer. Raises PremiereError where the request could not be made or did not take effect in `wait` s."""
    if not 1 <= len(user) <= LONGEST:
        raise SettingsError(f"A user's id has 1 to {LONGEST} characters.")
    logs = identity(settings.kafka(), [USER_EVENTS, TITLE_LAUNCHES, MODEL_VERSIONS])  # a producer would make a topic
    partition, offset = ask(settings.kafka(), user)
    say(f"The request is in the log: {USER_EVENTS}, partition {partition}, offset {offset}.")
    for line in reach(settings, datetime.now(UTC)):
        say(line)
    left = _until_gone(settings, user, offset, logs, wait, say)
    if left:
        raise PremiereError(
            f"After {wait:.0f} s it has not taken effect in {' and '.join(left)}. The request stays in the log, and "
            "takes effect when the flows come to it: see `premiere status` whether they run."
        )
    say("Gone: the lists in Redis and the row of the feature store; the offline log follows within a minute.")


def ask(config: dict[str, str], user: str) -> tuple[int, int]:
    """Write the request; its partition and offset. Raises ServiceError."""
    answers: list[tuple[Any, Any]] = []
    settings = {**producing(config), "delivery.report.only.error": False, "delivery.timeout.ms": DELIVERY * 1000}
    producer = Producer(settings)
    value = json.dumps({"user": user, "forget": True})
    try:
        producer.produce(USER_EVENTS, value, user, on_delivery=lambda *answer: answers.append(answer))
    except KafkaException as error:
        raise ServiceError(f"Kafka did not take the request: {error.args[0].str()}.") from error
    producer.flush(DELIVERY + 1)
    failure, record = answers[0] if answers else (None, None)
    if record is None or failure is not None:
        why = "no answer" if failure is None else failure.str()
        raise ServiceError(f"Kafka did not take the request ({why}): nothing was changed, try again when it runs.")
    return record.partition(), record.offset()


def reach(settings: Settings, now: datetime) -> Iterator[str]:
    """What the request cannot reach, and when the last copy expires."""
    kept = {topic.name: int(topic.config.get("retention.ms", 0)) // DAY_MS for topic in topics()}
    letters, anchor = kept[DEAD_LETTERS] + MARGIN, 2 * settings.anchor_hours / 24
    last = now + timedelta(days=max(settled(), letters, anchor, 1.1 * settings.redis_ttl_days))
    yield "What it does not reach:"
    yield "- for good: what the model's weights and the counts of all viewers learned from this viewer, without a name"
    log = now + timedelta(days=settled())
    yield f"- the topics {USER_EVENTS} and activity: until {log:%Y-%m-%d} (Kafka's retention)"
    yield f"- dead letters of this viewer: until {now + timedelta(days=letters):%Y-%m-%d}"
    yield f"- checkpoints from before: until {settings.keep_checkpoints} newer ones are written" + (
        f", an anchor until {now + timedelta(days=anchor):%Y-%m-%d}" if anchor else ""
    )
    yield "- pinned checkpoints: until they are no longer pinned (`premiere versions`)"
    yield "- the id alone: in a tombstone in Redis, in the mark beside the offline log, a note among dead letters, in"
    yield "  the recovery store until the next start of the flow features"
    yield f"Where the flows go on, the last copy but pinned checkpoints has expired on {last:%Y-%m-%d}."


def _until_gone(settings: Settings, user: str, offset: int, logs: str, wait: float, say: Say) -> list[str]:
    """Wait until it has taken effect; where it has not in time."""
    from features.store import StoreError, knows_user, open_store

    client: Any = redis_lists.connect(settings.redis())
    end, told = time.monotonic() + wait, time.monotonic()
    try:
        store = open_store(settings.redis(), settings.data_dir.resolve() / "feast")
        while True:
            newest = _newest(client, user, logs)
            left = ["Redis (the flow publish)"] if newest < offset else []
            if newest <= offset and knows_user(store, user):  # beyond it, the viewer is back
                left.append("the feature store (the flow features)")
            if not left or time.monotonic() >= end:
                return left
            if time.monotonic() - told >= WORD:
                say(f"Waiting for {' and '.join(left)} ...")
                told = time.monotonic()
            time.sleep(LOOK)
    except (RedisError, StoreError) as error:
        raise ServiceError(f"The request is in the log; whether it took effect is not known: {error}.") from error
    finally:
        client.close()


def _newest(client: Any, user: str, logs: str) -> int:
    """The viewer's newest offset that Redis knows of; -1 where it is of another log, or there is none."""
    found = [value.decode() if value else "" for value in client.hmget(redis_lists.key(user), "log", "revision")]
    return int(found[1].partition(".")[0]) if found[0] == logs and found[1] else -1
