"""`premiere erase-user`: request the erasure of a user, wait until it takes effect, and list the remaining copies.

The request is an ordinary record of the topic `erasure-requests`, so a service may send it without this command. Every
flow acts on it by its append time, also when the topics are reprocessed. The command waits for the two stores that
change at once: the online feature store, and the lists in Redis.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaException, Producer
from redis.exceptions import RedisError

from features.redis_address import connect
from infra.errors import PremiereError, ServiceError, TopicError
from infra.monitor.lag import LagReader
from infra.operate.compaction_schedule import DAY_MS, RETENTION_MARGIN_DAYS, event_retention_days
from infra.settings import Settings
from infra.topics import log_identity
from streaming.kafka.client import producer_config, topic_name
from streaming.records import ErasureRequest, to_json
from streaming.stores import list_client
from streaming.topics import DEAD_LETTERS, ERASURE_REQUESTS, MODEL_VERSIONS, TITLE_LAUNCHES, USER_EVENTS, topics

DELIVERY_TIMEOUT_S: Final = 15  # for the broker to accept the request
POLL_INTERVAL_S: Final = 0.2
PROGRESS_INTERVAL_S: Final = 5.0


class SentRequest(NamedTuple):
    """Where and when Kafka appended the request."""

    partition: int
    offset: int
    appended: int  # ms


PrintLine = Callable[[str], object]


def erase_user(settings: Settings, user: str, timeout: float, print_line: PrintLine) -> None:
    """Erase a user. Raises PremiereError if the request fails or takes no effect within `timeout` seconds."""
    # Also checks that the topics exist: some brokers would create one for a producer.
    log_id = log_identity(settings.kafka_config(), [USER_EVENTS, TITLE_LAUNCHES, MODEL_VERSIONS])
    log_identity(settings.kafka_config(), [ERASURE_REQUESTS])
    request = send_request(settings.kafka_config(), user)
    partition, offset, _ = request
    topic = topic_name(settings.kafka_config(), ERASURE_REQUESTS)
    print_line(f"The request was written to {topic}, partition {partition}, offset {offset}.")
    for line in remaining_copies(settings, datetime.now(UTC)):
        print_line(line)
    pending = _wait_for_stores(settings, user, request, log_id, timeout, print_line)
    if pending:
        raise PremiereError(
            f"After {timeout:.0f} s the request has not taken effect in {' and '.join(pending)}. It stays in Kafka "
            "and takes effect when the flows reach it: `premiere status` shows whether they are running."
        )
    print_line(
        "Erased from the lists in Redis and from the online features. The offline log follows: within seconds while it"
        " is small, at the latest within two hours."
    )


def send_request(config: dict[str, str], user: str) -> SentRequest:
    """Write the erasure request. Raises ServiceError."""
    deliveries: list[tuple[Any, Any]] = []
    limits = {"delivery.report.only.error": False, "delivery.timeout.ms": DELIVERY_TIMEOUT_S * 1000}
    producer = Producer({**producer_config(config), **limits})
    value = to_json(ErasureRequest(user=user))
    try:
        producer.produce(
            topic_name(config, ERASURE_REQUESTS), value, user, on_delivery=lambda *delivery: deliveries.append(delivery)
        )
    except KafkaException as error:
        raise ServiceError(f"Kafka did not accept the request: {error.args[0].str()}.") from error
    producer.flush(DELIVERY_TIMEOUT_S + 1)
    failure, record = deliveries[0] if deliveries else (None, None)
    if record is None or failure is not None:
        reason = "no answer" if failure is None else failure.str()
        raise ServiceError(f"Kafka did not accept the request ({reason}): nothing was changed; try again later.")
    return SentRequest(record.partition(), record.offset(), record.timestamp()[1])


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
    yield "- the checkpoint of an active rollback: until `premiere rollforward`"
    until = now + timedelta(days=retention_days[ERASURE_REQUESTS] + RETENTION_MARGIN_DAYS)
    yield f"- the id itself: in the topic {ERASURE_REQUESTS} until {until:%Y-%m-%d} (retention), in the state of the"
    yield "  flow features, in an erasure marker in Redis, and next to the offline log until it is applied there"
    yield f"If the flows keep running, the last copy except pinned checkpoints expires on {last:%Y-%m-%d}."


def _wait_for_stores(
    settings: Settings, user: str, request: SentRequest, log_id: str, timeout: float, print_line: PrintLine
) -> list[str]:
    """Wait until the request has taken effect; return the stores in which it has not after `timeout` seconds."""
    client: Any = connect(settings.require_redis_url())
    deadline, printed = time.monotonic() + timeout, time.monotonic()
    try:
        with LagReader(settings.kafka_config()) as lags:
            while True:
                pending = [] if _is_read(lags, request) else ["the feature store (the flow features)"]
                if not _has_no_earlier_lists(client, user, request, log_id, settings.namespace):
                    pending.append("Redis (the flow publish)")
                if not pending or time.monotonic() >= deadline:
                    return pending
                if time.monotonic() - printed >= PROGRESS_INTERVAL_S:
                    print_line(f"Waiting for {' and '.join(pending)} ...")
                    printed = time.monotonic()
                time.sleep(POLL_INTERVAL_S)
    except (RedisError, TopicError) as error:
        raise ServiceError(f"The request was written, but its effect cannot be checked: {error}.") from error
    finally:
        client.close()


def _is_read(lags: LagReader, request: SentRequest) -> bool:
    """Whether `features` has committed the request: then the online features are deleted."""
    rows = lags.read({"features": [ERASURE_REQUESTS]})
    return any(row.partition == request.partition and (row.committed_offset or 0) > request.offset for row in rows)


def _has_no_earlier_lists(client: Any, user: str, request: SentRequest, log_id: str, namespace: str) -> bool:
    """Whether Redis has no lists of the user from before the request."""
    found = list_client.read_revision(client, user, namespace)
    return found is None or (found[0] == log_id and found[1].appended >= request.appended)
