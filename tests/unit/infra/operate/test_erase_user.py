"""An erasure request is checked and written, and the remaining copies are listed with their expiry."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.errors import ServiceError, TopicError
from infra.operate import erase_user as erasure
from infra.operate.compaction_schedule import event_retention_days
from infra.settings import Settings
from infra.topics import partition_counts
from streaming.kafka.source import read_all
from streaming.topics import ERASURE_REQUESTS
from tests.support.kafka import StartBroker


def test_request_is_written_to_the_users_partition(new_kafka: dict[str, str]) -> None:
    first, second = (erasure.send_request(new_kafka, "ann") for _ in range(2))
    assert second[:2] == (first.partition, first.offset + 1)
    found = [(m.key, m.value, m.partition, m.offset, m.appended) for m in read_all(new_kafka, ERASURE_REQUESTS)]
    assert found == [(b"ann", b'{"user":"ann"}', *sent) for sent in (first, second)]


def test_erasure_without_broker_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "DELIVERY_TIMEOUT_S", 1)
    with pytest.raises(ServiceError, match="nothing was changed"):
        erasure.send_request({"bootstrap.servers": "127.0.0.1:1"}, "u")


def test_erasure_without_topics_is_an_error_and_creates_none(start_broker: StartBroker, tmp_path: Path) -> None:
    with start_broker(tmp_path / "kafka") as address:
        settings = Settings(data_dir=tmp_path, bootstrap_servers=address, redis_url="redis://127.0.0.1:1/0")
        with pytest.raises(TopicError, match="premiere topics --create"):
            erasure.erase_user(settings, "u", 1, print)
        assert ERASURE_REQUESTS not in partition_counts(settings.kafka_config())


def test_last_copy_expires_with_longest_retention(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    lines = list(
        erasure.remaining_copies(Settings(data_dir=tmp_path, list_ttl_days=30, long_term_checkpoint_hours=24), now)
    )
    assert f"{now + timedelta(days=event_retention_days()):%Y-%m-%d}" in "\n".join(lines)
    assert lines[-1] == "If the flows keep running, the last copy except pinned checkpoints expires on 2026-02-08."
    longer = list(
        erasure.remaining_copies(Settings(data_dir=tmp_path, list_ttl_days=100, long_term_checkpoint_hours=24), now)
    )
    assert longer[-1].endswith("2026-04-21.")
