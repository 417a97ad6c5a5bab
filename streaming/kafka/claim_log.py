"""One process's clients on the topic `owners`: writes a claim, and reads every claim before it.

A Kafka client can hang for ever inside a call after an outage (librdkafka issues 4519 and 5476). So each exchange runs
in a thread of its own, for a limited time. The caller gives an exchange up that does not return, together with its
clients, and continues with a new `ClaimLog`. An exchange that was given up changes nothing: only its result would have.
"""

import threading
import time
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from streaming.errors import OwnershipError
from streaming.kafka.client import consumer_config, discard, producer_config, topic_name
from streaming.records import DECODE_ERRORS, OwnerClaim, decode_owner, to_json
from streaming.topics import OWNERS

ANSWER_TIMEOUT_S: Final = 10.0  # for the broker to accept a claim, and again to return it
EXCHANGE_TIMEOUT_S: Final = 30.0  # for both; longer only if a client hangs
CALL_GRACE_S: Final = 1.0  # for a call to return after its own timeout
MARK_KEY: Final = b"mark"  # of a record that only marks the end of the topic

T = TypeVar("T")


class ClaimLog:
    """A producer and a consumer of the topic. `offset` is where the next exchange begins to read."""

    def __init__(self, config: Mapping[str, Any], offset: int = OFFSET_BEGINNING) -> None:
        self.config, self.offset = config, offset
        limits = {"delivery.timeout.ms": round(ANSWER_TIMEOUT_S * 1000), "delivery.report.only.error": False}
        producer = Producer({**producer_config(config), **limits})
        self._clients: list[Any] = [producer, Consumer(consumer_config(config, "premiere-owners"))]

    def exchange(self, claim: OwnerClaim | None, timeout_s: float) -> list[OwnerClaim]:
        """Write a claim, or nothing but a mark, and return the claims from `offset` up to it. Raises OwnershipError."""
        producer, consumer = self._clients
        found, self.offset = _within(timeout_s, lambda: self._exchange(producer, consumer, claim))
        return found

    def write(self, claim: OwnerClaim, timeout_s: float) -> int:
        """Write a claim, and return its offset. Raises OwnershipError."""
        if not (producers := self._clients[:1]):
            raise OwnershipError("The Kafka client is being replaced after an outage.")
        return _within(timeout_s + CALL_GRACE_S, lambda: self._write(producers[0], claim, timeout_s))

    def discard(self) -> None:
        """Give the clients up, even if an exchange hangs. Nothing else may be called afterwards."""
        discard(self._clients)

    def _exchange(
        self, producer: Producer, consumer: Consumer, claim: OwnerClaim | None
    ) -> tuple[list[OwnerClaim], int]:
        end, offset, found = self._write(producer, claim), self.offset, list[OwnerClaim]()
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        consumer.assign([TopicPartition(topic_name(self.config, OWNERS), 0, offset)])
        while offset <= end:
            if time.monotonic() > deadline:
                raise OwnershipError(f"Kafka did not return the topic {OWNERS} within {ANSWER_TIMEOUT_S:g} s.")
            for record in consumer.consume(100, 0.1):
                error = record.error()
                if error is None:
                    offset = int(record.offset() or 0) + 1
                    found += _decode(record.key(), record.value())
                elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                    raise OwnershipError(f"The topic {OWNERS} was recreated: start the flow again.")
        consumer.unassign()  # between two exchanges nothing is fetched
        return found, offset

    def _write(self, producer: Producer, claim: OwnerClaim | None, timeout_s: float = ANSWER_TIMEOUT_S + 1) -> int:
        key, value = (claim.key, to_json(claim)) if claim is not None else (MARK_KEY, b"")
        deliveries: list[tuple[KafkaError | None, Any]] = []
        try:
            producer.produce(
                topic_name(self.config, OWNERS),
                value,
                key,
                0,
                on_delivery=lambda *delivery: deliveries.append(delivery),
            )
        except (BufferError, KafkaException) as error:
            raise OwnershipError(f"Kafka refused a claim: {error}.") from error
        producer.flush(timeout_s)
        failure, record = deliveries[0] if deliveries else (None, None)
        if record is None or failure is not None:
            raise OwnershipError(f"Kafka did not accept a claim ({'no answer' if failure is None else failure.str()}).")
        return int(record.offset())


def _within(timeout_s: float, call: Callable[[], T]) -> T:
    """Call in a daemon thread. Raises OwnershipError for any error of the call, and if it does not return in time.

    The error is a new one: a traceback would keep the clients, and a later garbage collection in the thread of the
    dataflow would destroy them there.
    """
    answers: SimpleQueue[tuple[T] | str] = SimpleQueue()

    def run() -> None:
        try:
            answers.put((call(),))
        except Exception as error:
            answers.put(str(error) if isinstance(error, OwnershipError) else repr(error))

    threading.Thread(target=run, name="owner claim", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout_s)
    except Empty:
        raise OwnershipError(f"The Kafka client hangs: a call did not return within {timeout_s:g} s.") from None
    if isinstance(answer, str):
        raise OwnershipError(answer)
    return answer[0]


def _decode(key: bytes | None, value: bytes | None) -> list[OwnerClaim]:
    try:
        found = decode_owner(value or b"")
    except DECODE_ERRORS:
        return []
    return [found] if key == found.key else []
