"""A process claims its worker of a flow with a number above those that its readers know."""

import threading
from pathlib import Path

import pytest
from confluent_kafka import Producer
from redis import Redis

from infra.run.owner import own_worker
from infra.run.workers import SINGLE_WORKER
from infra.settings import Settings
from streaming.errors import OwnedElsewhereError
from streaming.records import Version, to_json
from streaming.stores.list_client import owners_key
from streaming.topics import MODEL_VERSIONS

FAR_AHEAD = 9_000_000_000_000  # a number of a clock that is wrong


def test_processes_of_one_folder_replace_each_other(new_kafka: dict[str, str], tmp_path: Path) -> None:
    def settings(folder: str) -> Settings:
        (tmp_path / folder).mkdir(exist_ok=True)
        address = new_kafka["bootstrap.servers"]
        return Settings(bootstrap_servers=address, redis_url="", data_dir=tmp_path / folder, lease_seconds=1)

    stop = threading.Event()
    with own_worker(settings("a"), "titles", SINGLE_WORKER, stop, locked=True) as first:
        with pytest.raises(OwnedElsewhereError), own_worker(settings("b"), "titles", SINGLE_WORKER, stop, locked=True):
            pass
        with pytest.raises(OwnedElsewhereError), own_worker(settings("a"), "titles", SINGLE_WORKER, stop, locked=False):
            pass
        with own_worker(settings("a"), "titles", SINGLE_WORKER, stop, locked=True) as second:
            assert second.number > first.number
    with own_worker(settings("b"), "titles", SINGLE_WORKER, threading.Event(), locked=True) as third:
        assert third.number > second.number


def test_number_is_above_those_that_readers_know(new_kafka: dict[str, str], redis_url: str, tmp_path: Path) -> None:
    settings = Settings(
        bootstrap_servers=new_kafka["bootstrap.servers"], redis_url=redis_url, data_dir=tmp_path, prefix="", threads=1
    )
    version = Version(path="v", step=1, position=1, learned=1, mrr=None, created=0, owner=FAR_AHEAD)
    producer = Producer(new_kafka)
    producer.produce(MODEL_VERSIONS, to_json(version), partition=0)
    assert producer.flush(20) == 0
    client = Redis.from_url(redis_url)
    client.hset(owners_key(), "0", str(FAR_AHEAD + 5))
    try:
        for flow, expected in (("learn", FAR_AHEAD + 1), ("publish", FAR_AHEAD + 6)):
            with own_worker(settings, flow, SINGLE_WORKER, threading.Event(), locked=True) as owner:
                assert owner.number == expected
    finally:
        client.delete(owners_key())
