"""Two deployments with different prefixes on one Kafka and one Redis: each reads, changes and deletes only its own."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest
from confluent_kafka.admin import AdminClient
from redis import Redis

from features.store import has_user, open_store
from infra.local.session import Session, run_session
from infra.operate import erase_user as erasure
from infra.operate.inspect import recent_titles
from infra.operate.reset import delete_state
from infra.settings import Settings
from streaming.records import Event, Launch, to_json
from streaming.stores.list_client import key, read
from streaming.topics import TITLE_LAUNCHES, USER_EVENTS
from tests.support.kafka import StartBroker
from tests.support.session import TIMEOUT_S, send_records, wait_for

pytestmark = [pytest.mark.long, pytest.mark.extended]

TITLES: Final = 12
PREFIXES: Final = ("", "staging")


@pytest.fixture(scope="module")
def sessions(
    start_broker: StartBroker, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[ExitStack, Session]]]:
    """The running deployments by prefix. The titles of a deployment begin with its namespace."""
    folder, started = tmp_path_factory.mktemp("prefix"), dict[str, tuple[ExitStack, Session]]()
    Redis.from_url(redis_url).flushdb()  # other tests use this Redis too
    with start_broker(folder / "kafka") as address, ExitStack() as all_stacks:
        for prefix in PREFIXES:
            settings = Settings(
                data_dir=folder / f"data-{prefix}", bootstrap_servers=address, redis_url=redis_url, prefix=prefix,
                metrics_port=0, checkpoint_seconds=1, epoch_seconds=0.5,
            )  # fmt: skip
            stack = all_stacks.enter_context(ExitStack())
            session = stack.enter_context(run_session(settings))
            started[prefix] = stack, session
            name = settings.namespace
            send_records(session, *(launch(f"{name}-{n}") for n in range(TITLES)))
            send_records(session, *(event(f"u{n % 7}", f"{name}-{n % TITLES}") for n in range(60)))
        yield started


def launch(title: str) -> tuple[str, str, bytes]:
    return TITLE_LAUNCHES, title, to_json(Launch(title=title, name=f"A story, {title}"))


def event(user: str, title: str) -> tuple[str, str, bytes]:
    return USER_EVENTS, user, to_json(Event(user=user, title=title, ts=round(time.time() * 1000)))


def served(session: Session, user: str) -> list[str]:
    return read(session.redis, user, namespace=session.settings.namespace)


def listed_after_events(session: Session) -> list[str]:
    """Send one event; the list of u1, if there is one. A checkpoint is due only after a new event."""
    send_records(session, event("u0", f"{session.settings.namespace}-0"))
    return served(session, "u1")


def features(session: Session, user: str) -> bool:
    settings = session.settings
    return has_user(open_store(settings.require_redis_url(), settings.data_dir / "feast", settings.namespace), user)


def test_each_deployment_serves_its_own_titles(sessions: dict[str, tuple[ExitStack, Session]]) -> None:
    for _, session in sessions.values():
        name = session.settings.namespace
        titles: Any = wait_for(session, "a list", lambda session=session: listed_after_events(session))  # type: ignore[misc]
        assert {title.rpartition("-")[0] for title in titles} == {name}
        assert {one.rpartition("-")[0] for one in recent_titles(session.settings, ["u1"])["u1"]} == {f"A story, {name}"}
        assert session.flows.restarts() == dict.fromkeys(session.flows.flows, 0)


def test_erasure_affects_one_deployment(sessions: dict[str, tuple[ExitStack, Session]]) -> None:
    (_, production), (_, staging) = (sessions[prefix] for prefix in PREFIXES)
    erasure.erase_user(staging.settings, "u2", TIMEOUT_S, lambda line: None)
    assert not features(staging, "u2")
    assert features(production, "u2")
    assert int(production.redis.hget(key("u2"), "events")) > 0


def test_reset_affects_one_deployment(sessions: dict[str, tuple[ExitStack, Session]]) -> None:
    (_, production), (stack, staging) = (sessions[prefix] for prefix in PREFIXES)
    before = set(production.redis.scan_iter("premiere:*"))
    stack.close()
    delete_state(staging.settings, lambda question: True, lambda line: None)
    assert list(production.redis.scan_iter("staging:*")) == []
    assert not features(staging, "u1")
    assert features(production, "u1")
    assert before <= set(production.redis.scan_iter("premiere:*"))
    send_records(production, event("u1", "premiere-11"))
    count = int(production.redis.hget(key("u1"), "events"))
    wait_for(production, "the next event", lambda: int(production.redis.hget(key("u1"), "events")) == count + 1 or None)
    names = AdminClient({"bootstrap.servers": production.settings.bootstrap_servers}).list_topics(timeout=10).topics
    assert {"user-events", "staging.user-events"} <= names.keys()
