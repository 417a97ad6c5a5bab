"""Somebody is forgotten, in the whole loop: in Redis, Feast, the offline log, every state; and a replay brings nothing.

One stack for all of it, in order: what is forgotten, what a replay from the log's beginning makes of it, who returns.
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
import pytest

from features.store import knows_user, open_store
from infra.errors import PremiereError, ServiceError, SettingsError, TopicError
from infra.local.session import Session, running
from infra.operate import erase_user as forgetting
from infra.operate.compaction_schedule import settled
from infra.settings import Settings
from infra.topics import partitions
from model import checkpoint
from streaming.kafka.source import read_all
from streaming.records import Event, Forgotten, Launch, decode_log, to_json
from streaming.stores.redis_lists import key, read
from streaming.topics import ACTIVITY, TITLE_LAUNCHES, USER_EVENTS
from tests.support.kafka import OwnKafka
from tests.support.learner import holds
from tests.support.session import PATIENCE, send, within

pytestmark = pytest.mark.long

GONE: Final = "somebody-to-be-forgotten"
TITLES: Final = 30


@pytest.fixture(scope="module")
def loop(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Everything, running, on a log of its own, with thirty titles and ten viewers."""
    folder = tmp_path_factory.mktemp("forget")
    with running(Settings(data_dir=folder, bootstrap_servers="", redis_url="", checkpoint_seconds=1)) as started:
        send(started, *((TITLE_LAUNCHES, f"t{n}", launch(n)) for n in range(TITLES)))
        send(started, *(watched(f"v{n % 10}", n % TITLES) for n in range(150)))
        send(started, *(watched(GONE, n) for n in range(12)))
        yield started


def launch(number: int) -> bytes:
    kind = ("space", "love", "crime")[number % 3]
    return to_json(Launch(title=f"t{number}", name=f"A {kind} story {number}", overview=f"All about {kind}."))


def watched(user: str, title: int) -> tuple[str, str, bytes]:
    return USER_EVENTS, user, to_json(Event(user=user, title=f"t{title}", ts=round(time.time() * 1000)))


def events(loop: Session, user: str) -> int:
    """How many events the user's lists know of."""
    return int(loop.redis.hget(key(user), "events") or 0)


def requests(loop: Session) -> list[int]:
    """Where in the learner's log requests to forget lie."""
    log = read_all(loop.settings.kafka(), ACTIVITY)
    return [message.offset for message in log if isinstance(decode_log(message.value or b""), Forgotten)]


def offline(loop: Session) -> list[str]:
    """The users of the offline log's rows; asked again where a compaction removes a file meanwhile."""
    root = loop.settings.data_dir / "feast" / "offline" / "user_activity"
    try:
        found: list[str] = pq.read_table(root, columns=["user_id"])["user_id"].to_pylist()
    except FileNotFoundError:
        return offline(loop)
    return found


def newest_state(loop: Session, beyond: int) -> Any:
    """The newest checkpoint that holds the log up to an offset."""
    for url in reversed(checkpoint.present(loop.settings.checkpoints_url())):
        if checkpoint.read_manifest(url)["position"] > beyond:
            return checkpoint.load(url)[0]
    return None


def nothing_is_left(loop: Session) -> None:
    """In no store, nor in any state."""
    assert set(loop.redis.hgetall(key(GONE))) == {"log", "revision"}
    assert read(loop.redis, GONE) == read(loop.redis, "a viewer nobody has seen") != []
    assert not knows_user(open_store(loop.settings.redis(), loop.settings.data_dir / "feast"), GONE)
    within(loop, "the offline log without the user's rows", lambda: GONE not in offline(loop))
    assert "v1" in offline(loop)
    send(loop, watched("v1", 3))
    state = within(loop, "a checkpoint from after it", lambda: newest_state(loop, requests(loop)[-1]))
    assert holds(state, "v1")
    assert holds(state, GONE) == []


def test_a_forgotten_viewer_is_gone_everywhere(loop: Session) -> None:
    within(loop, "lists", lambda: events(loop, GONE) == 12)
    within(loop, "rows in the offline log", lambda: offline(loop).count(GONE) == 12)
    said: list[str] = []
    forgetting.forget(loop.settings, GONE, PATIENCE, said.append)
    assert said[0].startswith("The request is in the log: user-events, partition ")
    assert said[-1].startswith("Gone:")
    nothing_is_left(loop)


def test_a_replay_from_the_logs_beginning_brings_nothing_back(loop: Session) -> None:
    before = len(requests(loop))
    shutil.rmtree(loop.settings.data_dir / "recovery" / "features")
    os.kill(loop.flows.pids()["features"], signal.SIGKILL)
    within(loop, "the request, read again", lambda: len(requests(loop)) > before)
    known = events(loop, "v2")
    send(loop, watched("v2", 29))
    within(loop, "an event from after the replay", lambda: events(loop, "v2") == known + 1)
    nothing_is_left(loop)


def test_who_comes_back_is_new_and_gets_lists_of_their_own(loop: Session) -> None:
    send(loop, watched(GONE, 20))
    within(loop, "lists", lambda: events(loop, GONE) == 1)
    assert "t20" not in read(loop.redis, GONE)
    assert "t5" in read(loop.redis, GONE)  # seen before, and that is forgotten
    within(loop, "the row in the offline log", lambda: offline(loop).count(GONE) == 1)


def test_a_viewer_nobody_knows_can_be_forgotten_and_an_id_that_cannot_be_is_refused(loop: Session) -> None:
    said: list[str] = []
    forgetting.forget(loop.settings, "nobody knows them", PATIENCE, said.append)
    assert said[-1].startswith("Gone:")
    for user in ("", "x" * 257):
        with pytest.raises(SettingsError, match="1 to 256"):
            forgetting.forget(loop.settings, user, 1, said.append)


def test_what_does_not_happen_in_time_is_said_and_stays_asked(loop: Session) -> None:
    said: list[str] = []
    publish = loop.flows.pids()["publish"]
    os.kill(publish, signal.SIGSTOP)
    try:
        with pytest.raises(PremiereError, match=r"Redis \(the flow publish\).*stays in the log"):
            forgetting.forget(loop.settings, "in a hurry", 1, said.append)
    finally:
        os.kill(publish, signal.SIGCONT)
    within(loop, "the tombstone", lambda: loop.redis.exists(key("in a hurry")))


def test_without_a_broker_nothing_is_changed_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "DELIVERY", 1)
    with pytest.raises(ServiceError, match="nothing was changed"):
        forgetting.ask({"bootstrap.servers": "127.0.0.1:1"}, "u")


def test_where_the_topics_are_not_there_it_is_said_and_none_is_made(own_kafka: OwnKafka, tmp_path: Path) -> None:
    with own_kafka(tmp_path / "kafka") as address:
        settings = Settings(data_dir=tmp_path, bootstrap_servers=address, redis_url="redis://127.0.0.1:1/0")
        with pytest.raises(TopicError, match="premiere topics --create"):
            forgetting.forget(settings, "u", 1, print)
        assert USER_EVENTS not in partitions(settings.kafka())


def test_the_last_copy_expires_when_the_longest_kept_thing_does(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    lines = list(forgetting.reach(Settings(data_dir=tmp_path, redis_ttl_days=30, anchor_hours=24), now))
    assert f"{now + timedelta(days=settled()):%Y-%m-%d}" in "\n".join(lines)
    assert lines[-1] == "Where the flows go on, the last copy but pinned checkpoints has expired on 2026-02-08."
    longer = list(forgetting.reach(Settings(data_dir=tmp_path, redis_ttl_days=100, anchor_hours=24), now))
    assert longer[-1].endswith("2026-04-21.")
