"""Flows that are killed, and services that go away, cost nothing: the short form of `make chaos`."""

import os
from pathlib import Path
from typing import Any, Final

import pytest
from chaos import TITLES, Kills, Outage, Service, stage
from chaos_tools import Counts, Disturb, Found, compare, run, settings

from infra.datasets import DataSet
from infra.simulate import audience

AWAY: Final = 8.0  # seconds: more than a client's first tries
BESIDE: Final = Path(__file__).parent.parent.parent / "shared" / "kafka"
HOME: Final = Path(os.environ.get("KAFKA_HOME", BESIDE))
apache = pytest.mark.skipif(not (HOME / "bin").exists(), reason="no Apache Kafka here: set KAFKA_HOME")


@pytest.fixture(scope="module")
def data() -> DataSet:
    return audience(users=20, titles=TITLES, events=400, days=60, seed=5)


@pytest.fixture(scope="module")
def want(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What an undisturbed run leaves."""
    found = run(settings(tmp_path_factory.mktemp("undisturbed")), data, None, print)
    assert all(found.weights.values())
    assert len(found.rows) == found.learned == len(data)
    return found


def assert_harmless(folder: Path, data: DataSet, want: Found, disturb: Disturb, **given: Any) -> None:
    report = stage("disturbed", folder, data, want, disturb, print, **given)
    assert {kind: counts for kind, counts in report.counts.items() if not counts.clean} == {}
    assert {kind: counts.wanted for kind, counts in report.counts.items()}["offline rows"] == len(data)


def test_each_flow_killed_at_a_random_moment_costs_nothing(tmp_path: Path, data: DataSet, want: Found) -> None:
    assert_harmless(tmp_path, data, want, Kills(1, seed=5, rate=40))


def test_redis_away_in_the_middle_is_waited_for(tmp_path: Path, data: DataSet, want: Found) -> None:
    with Service("Redis", tmp_path / "redis", None) as redis:
        assert_harmless(tmp_path, data, want, Outage(redis, AWAY, rate=40), redis_url=redis.address)
    for flow in ("features", "publish"):
        said = (tmp_path / "logs" / f"{flow}.log").read_text()
        assert "Redis does not answer" in said, flow
        assert "Redis answers again" in said, flow


@apache
def test_kafka_away_in_the_middle_is_waited_for(tmp_path: Path, data: DataSet, want: Found) -> None:
    with Service("Kafka", tmp_path / "kafka", HOME) as kafka:
        assert_harmless(tmp_path, data, want, Outage(kafka, AWAY, rate=40), bootstrap_servers=kafka.address)
    for flow in ("features", "titles", "learn", "publish"):
        said = (tmp_path / "logs" / f"{flow}.log").read_text()
        assert "Kafka does not answer" in said, flow
        assert "Kafka answers again" in said, flow


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
