"""`premiere erase-user`: request the erasure of a user, wait until it takes effect, and list the remaining copies.

The request is an ordinary record of the topic `user-events`, so a producer may send it without this command. Every flow
acts on it at its position, also when the topic is reprocessed. The command waits for the two stores that change at
once: Redis and the online feature store.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from confluent_kafka import KafkaException, Producer
from redis.exceptions import RedisError

from infra.errors import PremiereError, ServiceError, SettingsError
from infra.operate.compaction_schedule import DAY_MS, RETENTION_MARGIN_DAYS, event_retention_days
from infra.settings import Settings
from infra.topics import log_identity
from streaming.kafka.client import producer_config, topic_name
from streaming.records import EraseUser, to_json
from streaming.stores import list_client
from streaming.topics import DEAD_LETTERS, MODEL_VERSIONS, TITLE_LAUNCHES, USER_EVENTS, topics

MAX_ID_LENGTH: Final = 256  # characters
DELIVERY_TIMEOUT_S: Final = 15  # for the broker to accept the request
POLL_INTERVAL_S: Final = 0.2
PROGRESS_INTERVAL_S: Final = 5.0

PrintLine = Callable[[str], object]


def erase_user(settings: Settings, user: str, timeout: float, print_line: PrintLine) -> None:
    """Erase a user. Raises PremiereError if the request fails or takes no effect within `timeout` seconds."""
    if not 1 <= len(user) <= MAX_ID_LENGTH:
        raise SettingsError(f"A user id has 1 to {MAX_ID_LENGTH} characters.")
    # Also checks that the topics exist: some brokers would create one for a producer.
    log_id = log_identity(settings.kafka_config(), [USER_EVENTS, TITLE_LAUNCHES, MODEL_VERSIONS])
    topic, partition, offset = send_request(settings.kafka_config(), user)
    print_line(f"The request was written to {topic}, partition {partition}, offset {offset}.")
    for line in remaining_copies(settings, datetime.now(UTC)):
        print_line(line)
    pending = _wait_for_stores(settings, user, offset, log_id, timeout, print_line)
    if pending:
        raise PremiereError(
            f"After {timeout:.0f} s the request has not taken effect in {' and '.join(pending)}. It stays in Kafka "
            "and takes effect when the flows reach it: `premiere status` shows whether they are running."
        )
    print_line("Erased from the lists in Redis and from the online features; the offline log follows within a minute.")


def send_request(config: dict[str, str], user: str) -> tuple[str, int, int]:
    """Write the erasure request and return its topic, partition and offset. Raises ServiceError."""
    deliveries: list[tuple[Any, Any]] = []
    limits = {"delivery.report.only.error": False, "delivery.timeout.ms": DELIVERY_TIMEOUT_S * 1000}
    producer = Producer({**producer_config(config), **limits})
    topic, value = topic_name(config, USER_EVENTS), to_json(EraseUser(user=user, erase=True))
    try:
        producer.produce(topic, value, user, on_delivery=lambda *delivery: deliveries.append(delivery))
    except KafkaException as error:
        raise ServiceError(f"Kafka did not accept the request: {error.args[0].str()}.") from error
    producer.flush(DELIVERY_TIMEOUT_S + 1)
    failure, record = deliveries[0] if deliveries else (None, None)
    if record is None or failure is not None:
        reason = "no answer" if failure is None else failure.str()
        raise ServiceError(f"Kafka did not accept the request ({reason}): nothing was changed; try again later.")
    return topic, record.partition(), record.offset()


def remaining_copies(settings: Settings, now: datetime) -> Iterator[str]:
    """The copies that the request does not erase, and when the last of them expires, as lines of text."""
    retention_days = {topic.name: int(topic.config.get("retention.ms", 0)) // DAY_MS for topic in topics()}
    event_days, letter_days = event_retention_days(), retention_days[DEAD_LETTERS] + RETENTION_MARGIN_DAYS
    checkpoint_days = 2 * settings.long_term_checkpoint_hours / 24
    last = now + timedelta(days=max(event_days, letter_days, checkpoint_days, 1.1 * settings.list_ttl_days))
    yield "Not erased:"
    yield "- permanently: what the model's weights and its counts over all users learned from this user, without the id"
    yield f"- the topics {USER_EVENTS} and activity: until {now + timedelta(days=event_days):%Y-%m-%d} (retention)"
    yield f"- dead letters of this user: until {now + timedelta(days=letter_days):%Y-%m-%d} (retention)"
    long_term = f"; the long-term one until {now + timedelta(days=checkpoint_days):%Y-%m-%d}" if checkpoint_days else ""
    yield f"- older checkpoints: until {settings.keep_checkpoints} newer ones are written{long_term}"
    yield "- pinned checkpoints: until they are unpinned (`premiere versions`)"
    yield "- the id itself: in an erasure marker in Redis, in the request next to the offline log, in a note among the"
    yield "  dead letters, and in the recovery store until the flow features starts again"
    yield f"If the flows keep running, the last copy except pinned checkpoints expires on {last:%Y-%m-%d}."


def _wait_for_stores(
    settings: Settings, user: str, offset: int, log_id: str, timeout: float, print_line: PrintLine
) -> list[str]:
    """Wait until the request has taken effect; return the stores in which it has not after `timeout` seconds."""
    from features.store import StoreError, has_user, open_store

    client: Any = list_client.connect(settings.require_redis_url())
    deadline, printed = time.monotonic() + timeout, time.monotonic()
    try:
        store = open_store(settings.require_redis_url(), settings.data_dir.resolve() / "feast", settings.namespace)
        while True:
            newest = _newest_offset(client, user, log_id, settings.namespace)
            pending = ["Redis (the flow publish)"] if newest < offset else []
            if newest <= offset and has_user(store, user):  # a greater offset means that the user is back
                pending.append("the feature store (the flow features)")
            if not pending or time.monotonic() >= deadline:
                return pending
            if time.monotonic() - printed >= PROGRESS_INTERVAL_S:
                print_line(f"Waiting for {' and '.join(pending)} ...")
                printed = time.monotonic()
            time.sleep(POLL_INTERVAL_S)
    except (RedisError, StoreError) as error:
        raise ServiceError(f"The request was written, but its effect cannot be checked: {error}.") from error
    finally:
        client.close()


def _newest_offset(client: Any, user: str, log_id: str, namespace: str) -> int:
    """The newest offset of the user that Redis contains; -1 if there is none, or it is of another log."""
    found = list_client.read_revision(client, user, namespace)
    return found[1].event_offset if found and found[0] == log_id else -1
