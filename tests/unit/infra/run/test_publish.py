"""The offset from which a worker of `publish` fills its caches."""

from infra.run.peer_offsets import worker_group_id
from infra.run.publish import start_offset
from infra.run.workers import Worker
from tests.support.kafka import commit_offset
from tests.support.streams import produce


def test_new_worker_starts_at_offset_of_group(kafka: str, topic: str) -> None:
    config, limit = {"bootstrap.servers": kafka}, 10
    for start in range(0, 100, 10):
        produce(config, topic, range(start, start + 10))
    old, new = Worker(0, 1), Worker(1, 2)
    assert 80 < start_offset(config, topic, limit, new) <= 90  # Tansu's end offset is up to one batch too low
    commit_offset(kafka, worker_group_id(old), topic, 30)
    assert start_offset(config, topic, limit, new) == 30  # there may be erasure requests after it
    commit_offset(kafka, worker_group_id(new), topic, 40)
    assert start_offset(config, topic, limit, new) == 40
    assert start_offset(config, topic, limit, old) == 30
    assert start_offset(config, topic, None, new) == 0
