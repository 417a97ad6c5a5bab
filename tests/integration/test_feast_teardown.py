"""`feast teardown` while the flows run: they continue, and the features of all users and titles return."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from redis import Redis

from infra.data.producer import Delivery
from infra.local.processes import log_tail, spawn, stop
from infra.local.services import start_services
from infra.settings import Settings
from streaming import topics as t
from streaming.records import Event, Launch, to_json
from tests.support.feast_client import feast_client

USERS: Final = 400
TITLES: Final = 30
TIMEOUT_S: Final = 180.0  # for any effect on a busy machine
FLOWS: Final = ("features", "titles")


@pytest.fixture
def services(broker: str, tmp_path: Path) -> Iterator[Settings]:
    """A broker and a Redis for this test, since topic names are fixed."""
    with start_services(Settings(data_dir=tmp_path, bootstrap_servers="", metrics_port=0)) as settings:
        yield settings


def send(settings: Settings, users: range) -> None:
    delivery = Delivery(settings.kafka_config())
    for number in users:
        event = Event(user=f"u{number}", title=f"t{number % TITLES}", ts=1_700_000_000_000 + number)
        delivery.send(t.USER_EVENTS, event.user, to_json(event))
    delivery.flush()
    delivery.close()


def launch(settings: Settings) -> None:
    delivery = Delivery(settings.kafka_config())
    for number in range(TITLES):
        title = Launch(title=f"t{number}", name=f"Alien {number}", overview="In space.")
        delivery.send(t.TITLE_LAUNCHES, title.title, to_json(title))
    delivery.flush()
    delivery.close()


def rows(settings: Settings, fields: range = range(3, 100)) -> dict[str, int]:
    """The number of keys of each entity in the online store with this many fields."""
    with Redis.from_url(settings.require_redis_url()) as client:
        found = {key: list(client.scan_iter(f"*{key}*", count=1000)) for key in ("user_id", "title_id")}
        return {key: sum(client.hlen(name) in fields for name in names) for key, names in found.items()}


def test_features_return_after_a_teardown(services: Settings) -> None:
    send(services, range(USERS))
    launch(services)
    logs = {flow: services.data_dir / f"{flow}.log" for flow in FLOWS}
    command, environment = [sys.executable, "-P", "-m", "infra.cli.main", "run"], services.environment()
    flows = {flow: spawn([*command, flow], logs[flow], {**os.environ, **environment}) for flow in FLOWS}

    def wait_until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert all(flow.poll() is None for flow in flows.values()), [log_tail(log) for log in logs.values()]
            assert time.monotonic() < deadline, (rows(services), [log_tail(log) for log in logs.values()])
            time.sleep(0.2)

    try:
        wait_until(lambda: rows(services) == {"user_id": USERS, "title_id": TITLES})
        wait_until(lambda: rows(services, range(2, 3)) == {"user_id": 1, "title_id": 1})  # the marks of both flows
        password = urlsplit(services.require_redis_url()).password or ""
        done = subprocess.run(
            [sys.executable, "-m", "feast.cli.cli", "teardown"], cwd=services.data_dir / "feast",
            env={**os.environ, "REDIS_PASSWORD": password}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        send(services, range(USERS, USERS + 10))  # the flow continues
        wait_until(lambda: rows(services) == {"user_id": USERS + 10, "title_id": TITLES})
    finally:
        stop(*flows.values())
    text = "".join(log.read_text() for log in logs.values())
    assert "Another Feast program has removed title_semantics, user_activity" in text
    assert all(f"The rows of {view} were deleted" in text for view in ("user_activity", "title_semantics"))
    refs = ["user_activity:last_title", "title_semantics:name"]
    values = feast_client(services).get_online_features(refs, [{"user_id": "u7", "title_id": "t7"}]).to_dict()
    assert (values["last_title"], values["name"]) == (["t7"], ["Alien 7"])
