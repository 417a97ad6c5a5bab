"""Erasure of a user in the whole running system: in Redis, Feast, the offline log and every state.

The tests share one system and run in order: the erasure, reprocessing of the log from its start, the user's return.
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from typing import Any, Final

import pyarrow.parquet as pq
import pytest

from features.store import has_user, open_store
from infra.errors import PremiereError
from infra.local.session import Session, run_session
from infra.operate import erase_user as erasure
from infra.operate.compaction_schedule import compact_offline_log
from infra.settings import Settings
from model import checkpoint
from streaming.kafka.source import read_all
from streaming.records import Event, Launch, UserErasure, decode_log, to_json
from streaming.stores.list_client import key, read
from streaming.topics import ACTIVITY, ERASURE_REQUESTS, TITLE_LAUNCHES, USER_EVENTS
from tests.support.learner import find_in_state
from tests.support.session import TIMEOUT_S, send_records, wait_for

pytestmark = pytest.mark.long

ERASED_USER: Final = "user-to-erase"
TITLE_COUNT: Final = 30


@pytest.fixture(scope="module")
def session(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A running system with its own log, 30 titles and 10 users besides the erased one."""
    folder = tmp_path_factory.mktemp("erase-user")
    with run_session(Settings(data_dir=folder, bootstrap_servers="", redis_url="", checkpoint_seconds=1)) as started:
        send_records(started, *((TITLE_LAUNCHES, f"t{n}", launch(n)) for n in range(TITLE_COUNT)))
        send_records(started, *(watch_event(f"v{n % 10}", n % TITLE_COUNT) for n in range(150)))
        send_records(started, *(watch_event(ERASED_USER, n) for n in range(12)))
        yield started


def launch(number: int) -> bytes:
    kind = ("space", "love", "crime")[number % 3]
    return to_json(Launch(title=f"t{number}", name=f"A {kind} story {number}", overview=f"All about {kind}."))


def watch_event(user: str, title: int) -> tuple[str, str, bytes]:
    return USER_EVENTS, user, to_json(Event(user=user, title=f"t{title}", ts=round(time.time() * 1000)))


def events(session: Session, user: str) -> int:
    """The number of events behind the user's lists."""
    return int(session.redis.hget(key(user), "events") or 0)


def requests(session: Session) -> list[int]:
    """The offsets of erasure requests in the learner log."""
    log = read_all(session.settings.kafka_config(), ACTIVITY)
    return [message.offset for message in log if isinstance(decode_log(message.value or b""), UserErasure)]


def offline(session: Session) -> list[str]:
    """The user of each row of the offline log. Read again if a compaction removes a file meanwhile."""
    root = session.settings.data_dir / "feast" / "offline" / "user_activity"
    try:
        found: list[str] = pq.read_table(root, columns=["user_id"])["user_id"].to_pylist()
    except FileNotFoundError:
        return offline(session)
    return found


def compacted(session: Session) -> bool:
    """Compact as the flow `features` does every hour; whether the user's rows are removed."""
    compact_offline_log(session.settings)
    return ERASED_USER not in offline(session)


def newest_state(session: Session, beyond: int) -> Any:
    """The state of the newest checkpoint that includes the log offset `beyond`; None if there is none yet."""
    for url in reversed(checkpoint.list_checkpoints(session.settings.checkpoints_url())):
        if checkpoint.read_manifest(url)["position"] > beyond:
            return checkpoint.load(url)[0]
    return None


def check_user_is_erased(session: Session) -> None:
    """The user's data is in no store and in no state."""
    assert set(session.redis.hgetall(key(ERASED_USER))) == {"log", "revision"}
    assert read(session.redis, ERASED_USER) == read(session.redis, "unknown user") != []
    assert not has_user(
        open_store(session.settings.require_redis_url(), session.settings.data_dir / "feast"), ERASED_USER
    )
    wait_for(session, "the offline log without the user's rows", lambda: compacted(session))
    assert "v1" in offline(session)
    send_records(session, watch_event("v1", 3))
    state = wait_for(session, "a checkpoint after the request", lambda: newest_state(session, requests(session)[-1]))
    assert find_in_state(state, "v1")
    assert find_in_state(state, ERASED_USER) == []


def test_erased_user_is_removed_from_all_stores(session: Session) -> None:
    wait_for(session, "lists", lambda: events(session, ERASED_USER) == 12)
    wait_for(session, "rows in the offline log", lambda: offline(session).count(ERASED_USER) == 12)
    lines: list[str] = []
    erasure.erase_user(session.settings, ERASED_USER, TIMEOUT_S, lines.append)
    assert lines[0].startswith(f"The request was written to {ERASURE_REQUESTS}, partition ")
    assert lines[-1].startswith("Erased from")
    check_user_is_erased(session)


def test_reprocessing_does_not_restore_erased_user(session: Session) -> None:
    before = len(requests(session))
    shutil.rmtree(session.settings.data_dir / "recovery" / "features")
    os.kill(session.flows.pids()["features"], signal.SIGKILL)
    wait_for(session, "the reprocessed request", lambda: len(requests(session)) > before)
    known = events(session, "v2")
    send_records(session, watch_event("v2", 29))
    wait_for(session, "an event after reprocessing", lambda: events(session, "v2") == known + 1)
    check_user_is_erased(session)


def test_erased_user_can_return_as_new_user(session: Session) -> None:
    send_records(session, watch_event(ERASED_USER, 20))
    wait_for(session, "lists", lambda: events(session, ERASED_USER) == 1)
    assert "t20" not in read(session.redis, ERASED_USER)
    watched_before = {f"t{n}" for n in range(12)}
    assert watched_before & set(read(session.redis, ERASED_USER))
    wait_for(session, "the row in the offline log", lambda: offline(session).count(ERASED_USER) == 1)


def test_erasure_accepts_unknown_users(session: Session) -> None:
    lines: list[str] = []
    erasure.erase_user(session.settings, "unknown user 2", TIMEOUT_S, lines.append)
    assert lines[-1].startswith("Erased from")


def test_erasure_timeout_names_slow_store_and_keeps_request(session: Session) -> None:
    lines: list[str] = []
    publish = session.flows.pids()["publish"]
    os.kill(publish, signal.SIGSTOP)
    try:
        with pytest.raises(PremiereError, match=r"Redis \(the flow publish\).*stays in Kafka"):
            erasure.erase_user(session.settings, "v3", 5, lines.append)
    finally:
        os.kill(publish, signal.SIGCONT)
    wait_for(session, "the tombstone", lambda: not session.redis.hexists(key("v3"), "version"))
