"""Claims are written and read within a limited time, even if a Kafka client hangs."""

import threading
import time
from typing import Any

import pytest
from confluent_kafka import KafkaException

from infra.topics import create_topics
from streaming.errors import OwnershipError
from streaming.kafka.claim_log import ClaimLog
from streaming.kafka.ownership import new_claim
from streaming.topics import OWNERS, topics


@pytest.fixture
def config(kafka: str, request: pytest.FixtureRequest) -> dict[str, str]:
    config = {"bootstrap.servers": kafka, "premiere.prefix": f"t{abs(hash(request.node.nodeid))}"}
    create_topics(config, [topic for topic in topics() if topic.name == OWNERS])
    return config


def test_exchange_returns_the_claims_up_to_its_own(config: dict[str, str]) -> None:
    first, second = (new_claim("features", worker, 2, "a") for worker in (0, 1))
    claims = ClaimLog(config)
    assert claims.exchange(first, 30) == [first]
    claims.write(second, 10)
    assert claims.exchange(None, 30) == [second]
    assert claims.exchange(None, 30) == []


def test_exchange_that_hangs_is_given_up_and_changes_nothing(
    config: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    claims, lock, ended = ClaimLog(config), threading.Lock(), threading.Event()
    exchange = claims._exchange

    def hang(*arguments: Any) -> Any:
        with lock:
            result = exchange(*arguments)
        ended.set()
        return result

    monkeypatch.setattr(claims, "_exchange", hang)
    before = claims.offset
    with lock:
        with pytest.raises(OwnershipError, match="hangs"):
            claims.exchange(new_claim("features", 0, 1, "a"), 0.2)
        started_at = time.monotonic()
        claims.discard()
        assert time.monotonic() - started_at < 5
    assert ended.wait(30)  # the client continues too late
    assert claims.offset == before


def test_any_error_is_an_ownership_error(config: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    claims = ClaimLog(config)

    def fail(*arguments: Any) -> Any:
        raise KafkaException("fails")

    monkeypatch.setattr(claims, "_exchange", fail)
    with pytest.raises(OwnershipError, match="fails") as caught:
        claims.exchange(None, 5)
    assert caught.value.__cause__ is None  # its traceback would keep the clients
