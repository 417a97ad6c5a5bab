"""The sink writes rows to the online store at once, holds a bounded number during an outage, and is idempotent."""

import signal
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, run_main
from feast import FeatureStore
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from features.store import open_store, write_title_semantics
from infra.local.embedded import free_port, redis_answers, redis_server
from streaming.errors import StreamError
from streaming.stores.feast_online import STATE_FORMAT, FeastSink, WriteRows
from streaming.stores.retry import RedisRefusedError, RedisUnavailableError

NOON = datetime(2016, 5, 1, 12, tzinfo=UTC)
EACH_ITEM = timedelta(0)


@pytest.fixture(scope="module")
def store(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return open_store(redis_url, tmp_path_factory.mktemp("online"))


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex


def row(title: str, second: int) -> dict[str, Any]:
    stamp = NOON + timedelta(seconds=second)
    fields: dict[str, Any] = {"genres": [], "year": None, "withdrawn": False, "semantic": []}
    return {"title_id": title, "event_timestamp": stamp, "created": stamp, "name": f"at {second}", **fields}


def stored(store: FeatureStore, title: str) -> str | None:
    features = store.get_online_features(features=["title_semantics:name"], entity_rows=[{"title_id": title}])
    name: str | None = features.to_dict()["name"][0]
    return name


def flow(batches: Sequence[Any], sink: FeastSink) -> Dataflow:
    dataflow = Dataflow("online_test")
    keyed = op.map("keyed", op.input("input", dataflow, TestingSource(batches)), lambda batch: ("0", batch))
    op.output("online", keyed, sink)
    return dataflow


def writer(store: FeatureStore) -> WriteRows:
    return lambda rows: write_title_semantics(store, rows)


def test_rows_are_written_without_waiting_for_the_epoch(store: FeatureStore, prefix: str) -> None:
    seen = []

    def write(rows: Sequence[dict[str, Any]]) -> None:
        write_title_semantics(store, rows)
        seen.append([stored(store, prefix), len(rows)])

    run_main(flow([[row(prefix, 1)], [], [row(prefix, 2), row(prefix, 3)]], FeastSink(write)))  # one long epoch
    assert seen == [["at 1", 1], ["at 3", 2]]


def test_crash_and_reprocessing_keep_the_newest_row(store: FeatureStore, prefix: str, tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    recovery = RecoveryConfig(str(tmp_path))
    batches = [[row(prefix, 1)], [row(prefix, 5)], TestingSource.ABORT(), [row(prefix, 3)], [row(prefix, 4)]]
    for _ in range(2):
        run_main(flow(batches, FeastSink(writer(store))), epoch_interval=EACH_ITEM, recovery_config=recovery)
    assert stored(store, prefix) == "at 5"


def test_retry_after_half_a_batch_changes_nothing(store: FeatureStore, prefix: str) -> None:
    tries = []

    def write(rows: Sequence[dict[str, Any]]) -> None:
        tries.append(len(rows))
        write_title_semantics(store, rows[:1] if len(tries) == 1 else rows)
        if len(tries) == 1:
            raise RedisConnectionError("broken in the middle")

    run_main(flow([[row(prefix, 2), row(f"{prefix}b", 1)]], FeastSink(write, max_held_rows=0)))
    assert (stored(store, prefix), stored(store, f"{prefix}b")) == ("at 2", "at 1")
    assert tries == [2, 2]


class OwnRedis:
    """A Redis on one port that a test can stop and start."""

    def __init__(self, folder: Path) -> None:
        self.port, self.folder = free_port(), folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        command = [redis_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=self.folder)
        return self.process

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    server = OwnRedis(tmp_path)
    while not redis_answers(server.url):
        assert server.process.poll() is None
    yield server
    server.stop()


def test_sink_that_holds_no_more_waits_for_redis_and_logs_once(
    own_redis: OwnRedis, tmp_path: Path, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(own_redis.url, tmp_path / "repository")
    tries = []

    def write(rows: Sequence[dict[str, Any]]) -> None:
        tries.append(len(rows))
        if len(tries) == 2:
            own_redis.stop()
        if len(tries) == 4:
            own_redis.start()
        write_title_semantics(store, rows)

    run_main(flow([[row(f"{prefix}{number}", number)] for number in range(3)], FeastSink(write, max_held_rows=0)))
    assert [stored(store, f"{prefix}{number}") for number in (1, 2)] == ["at 1", "at 2"]
    assert sum("waiting for it" in message for message in caplog.messages) == 1
    assert sum("answers again" in message for message in caplog.messages) == 1


def test_rows_are_held_during_an_outage_and_written_by_the_next_call(
    own_redis: OwnRedis, tmp_path: Path, prefix: str
) -> None:
    store, rows, stop = open_store(own_redis.url, tmp_path / "repository"), [row(prefix, n) for n in range(3)], Event()
    own_redis.stop()
    part = FeastSink(writer(store), stop=stop).build_part("online", "p000", None)
    for one in rows:
        part.write_batch([[one]])  # does not wait for Redis
    assert part.held == rows
    own_redis.start()
    while not redis_answers(own_redis.url):
        assert own_redis.process.poll() is None
    part.breaker.wait(60, stop)
    part.write_batch([[]])
    assert (part.held, part.snapshot(), stored(store, prefix)) == ([], None, "at 2")


def test_hanging_redis_is_not_asked_for_every_batch(own_redis: OwnRedis, tmp_path: Path, prefix: str) -> None:
    store, tries = open_store(own_redis.url, tmp_path / "repository"), []

    def write(rows: Sequence[dict[str, Any]]) -> None:
        tries.append(len(rows))
        write_title_semantics(store, rows)

    own_redis.process.send_signal(signal.SIGSTOP)
    part = FeastSink(write).build_part("online", "p000", None)
    part.write_batch([[row(prefix, 0)]])
    part.breaker.retry_at = float("inf")  # not due
    for second in range(1, 50):
        part.write_batch([[row(prefix, second)]])
    assert (tries, len(part.held)) == ([1], 50)


def test_crash_during_an_outage_loses_no_held_row(own_redis: OwnRedis, tmp_path: Path, prefix: str) -> None:
    init_db_dir(tmp_path, 1)
    recovery, store = RecoveryConfig(str(tmp_path)), open_store(own_redis.url, tmp_path / "repository")
    failing = [True]

    def write(rows: Sequence[dict[str, Any]]) -> None:
        if failing:
            raise RedisConnectionError("gone")
        write_title_semantics(store, rows)

    batches = [[row(f"{prefix}a", 1)], [row(f"{prefix}b", 2)], [], TestingSource.ABORT(), []]
    run_main(flow(batches, FeastSink(write)), epoch_interval=EACH_ITEM, recovery_config=recovery)
    assert stored(store, f"{prefix}a") is None
    failing.clear()
    run_main(flow(batches, FeastSink(write)), epoch_interval=EACH_ITEM, recovery_config=recovery)
    assert (stored(store, f"{prefix}a"), stored(store, f"{prefix}b")) == ("at 1", "at 2")


def test_recovery_state_of_a_newer_format_is_refused() -> None:
    with pytest.raises(StreamError, match="newer version"):
        FeastSink(lambda rows: None).build_part("online", "p000", (STATE_FORMAT + 1, []))


def test_long_outage_ends_the_flow_with_the_remedy(tmp_path: Path, prefix: str) -> None:
    store = open_store(f"redis://127.0.0.1:{free_port()}/0", tmp_path)
    with pytest.raises(RedisUnavailableError, match="PREMIERE_REDIS_URL"):
        run_main(flow([[row(prefix, 1)]], FeastSink(writer(store), max_outage_s=0.2, max_held_rows=0)))


def test_stopping_flow_does_not_wait_for_redis(tmp_path: Path, prefix: str) -> None:
    store = open_store(f"redis://127.0.0.1:{free_port()}/0", tmp_path)
    stop = Event()
    stop.set()
    with pytest.raises(RedisUnavailableError):
        run_main(flow([[row(prefix, 1)]], FeastSink(writer(store), max_outage_s=1e9, stop=stop, max_held_rows=0)))


def test_redis_out_of_memory_is_an_outage(own_redis: OwnRedis, tmp_path: Path, prefix: str) -> None:
    store, tries = open_store(own_redis.url, tmp_path / "repository"), []

    def write(rows: Sequence[dict[str, Any]]) -> None:
        tries.append(len(rows))
        Redis.from_url(own_redis.url).config_set("maxmemory", 1 if len(tries) == 1 else 0)
        write_title_semantics(store, rows)

    run_main(flow([[row(prefix, 1)]], FeastSink(write, max_held_rows=0)))
    assert (stored(store, prefix), len(tries)) == ("at 1", 2)


def test_redis_answer_that_does_not_pass_ends_the_flow_at_once() -> None:
    def write(rows: Sequence[dict[str, Any]]) -> None:
        raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")

    with pytest.raises(RedisRefusedError, match="WRONGTYPE"):
        run_main(flow([[row("title", 1)]], FeastSink(write, max_outage_s=1e9)))
