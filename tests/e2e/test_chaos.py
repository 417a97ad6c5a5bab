"""Flows that are killed, and services that go away, cost nothing: the short form of `make chaos`."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from infra.data.datasets import DataSet
from infra.data.simulate import simulate
from infra.local.supervisor import FLOWS
from tests.support.chaos import Counts, Disturb, Found, compare, run, settings
from tests.support.kafka import HOME
from tests.tools.chaos import TITLES, Kills, Outage, Service, Several, stage

AWAY: Final = 8.0  # seconds: more than a client's first tries
RATE: Final = 40.0  # events/s


@pytest.fixture(scope="module")
def data() -> DataSet:
    return simulate(users=20, titles=TITLES, events=600, days=60, seed=5)


@pytest.fixture(scope="module")
def want(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What an undisturbed run leaves."""
    found = run(settings(tmp_path_factory.mktemp("undisturbed")), data, None, print)
    assert all(found.weights.values())
    assert len(found.rows) == found.learned == len(data)
    return found


def test_flows_killed_and_services_away_cost_nothing(tmp_path: Path, data: DataSet, want: Found) -> None:
    with ExitStack() as stack:
        redis = stack.enter_context(Service("Redis", tmp_path / "redis", None))
        parts: list[Disturb] = [Kills(1, seed=5, rate=RATE), Outage(redis, AWAY, RATE)]
        given = {"redis_url": redis.address}
        if HOME is not None:  # the embedded broker keeps nothing
            kafka = stack.enter_context(Service("Kafka", tmp_path / "kafka", HOME))
            parts.append(Outage(kafka, AWAY, RATE))
            given["bootstrap_servers"] = kafka.address
        report = stage("disturbed", tmp_path, data, want, Several(*parts), print, **given)
    assert {kind: counts for kind, counts in report.counts.items() if not counts.clean} == {}
    assert report.counts["offline rows"].wanted == len(data)
    said = {flow: (tmp_path / "logs" / f"{flow}.log").read_text() for flow in FLOWS}
    for flow in ("features", "publish"):
        assert "Redis does not answer" in said[flow], flow
        assert "Redis answers again" in said[flow], flow
    for flow in FLOWS if HOME is not None else ():
        assert "Kafka does not answer" in said[flow], flow
        assert "Kafka answers again" in said[flow], flow


def row(offset: int, title: str = "t") -> tuple[Any, ...]:
    return "u", title, 0, offset


def test_what_is_lost_doubled_or_different_is_counted() -> None:
    want = Found([row(1), row(2), row(3)], {"u": (3,)}, {"u": ("3", "0")}, 3, 0, {"weights": True})
    got = Found([row(1), row(1), row(2, "x")], {"u": (2,)}, {}, 2, 0, {"weights": False})
    assert compare(want, got) == {
        "offline rows": Counts(3, lost=1, doubled=1, differing=1),
        "histories in Feast": Counts(1, 0, 0, 1),
        "histories in Redis": Counts(1, 1, 0, 0),
        "events learned": Counts(3, 1, 0, 0),
        "checkpoint files": Counts(1, 0, 0, 1),
    }
