"""Killed flows and service outages lose and duplicate nothing: a short version of `make chaos`."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from infra.data.datasets import Dataset
from infra.data.simulate import simulate
from infra.local.supervisor import FLOWS
from tests.support.chaos import ErrorCounts, Fault, RunResult, compare_runs, run_dataset, session_settings
from tests.support.chaos_changes import scripted_changes
from tests.support.kafka import KAFKA_HOME
from tests.tools.chaos import (
    TITLE_COUNT,
    FaultSequence,
    FlowKills,
    FlowStalls,
    Outage,
    RestartableService,
    SecondProcesses,
    run_with_fault,
)

OUTAGE_S: Final = 8.0  # longer than a client's first retries
EVENT_RATE: Final = 40.0  # events/s


@pytest.fixture(scope="module")
def data() -> Dataset:
    return simulate(users=20, titles=TITLE_COUNT, events=600, days=60, seed=5)


@pytest.fixture(scope="module")
def want(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The result of a run without a fault."""
    changes = scripted_changes(data, 1, seed=5)
    found = run_dataset(session_settings(tmp_path_factory.mktemp("undisturbed")), data, None, print, changes)
    assert all(found.checkpoint_files.values())
    assert 0 < len(found.offline_rows) < found.learned_events == len(data)  # without the rows of an erased user
    return found


@pytest.mark.extended
def test_killed_flows_and_outages_lose_nothing(tmp_path: Path, data: Dataset, want: RunResult) -> None:
    with ExitStack() as stack:
        redis = stack.enter_context(RestartableService("Redis", tmp_path / "redis", None))
        faults: list[Fault] = [FlowKills(1, seed=5, rate=EVENT_RATE), FlowStalls(2.0, EVENT_RATE), SecondProcesses()]
        faults.append(Outage(redis, OUTAGE_S, EVENT_RATE))
        given: dict[str, Any] = {"redis_url": redis.address, "changes": scripted_changes(data, 1, seed=5)}
        if KAFKA_HOME is not None:  # the embedded broker keeps no data
            kafka = stack.enter_context(RestartableService("Kafka", tmp_path / "kafka", KAFKA_HOME))
            faults.append(Outage(kafka, OUTAGE_S, EVENT_RATE))
            given["bootstrap_servers"] = kafka.address
        report = run_with_fault("faults", tmp_path, data, want, FaultSequence(*faults), print, **given)
    assert {kind: counts for kind, counts in report.counts.items() if not counts.ok} == {}
    assert report.counts["offline_rows"].expected == len(want.offline_rows)
    logs = {flow: (tmp_path / "logs" / f"{flow}.log").read_text() for flow in FLOWS}
    for flow in ("features", "publish"):
        assert "Redis does not answer" in logs[flow], flow
        assert "Redis answers again" in logs[flow], flow
    for flow in FLOWS if KAFKA_HOME is not None else ():
        assert "Kafka does not answer" in logs[flow], flow
        assert "Kafka answers again" in logs[flow], flow


def row(offset: int, title: str = "t") -> tuple[Any, ...]:
    return "u", title, 0, offset


def test_lost_duplicated_and_different_records_are_counted() -> None:
    want = RunResult([row(1), row(2), row(3)], {"u": (3,)}, {"u": ("3", "0")}, 3, 0, {"weights": True}, {})
    got = RunResult(
        [row(1), row(1), row(2, "x")], {"u": (2,)}, {"v": ("1", "0")}, 2, 0, {"weights": False}, {"v": "a title twice"}
    )
    assert compare_runs(want, got) == {
        "offline_rows": ErrorCounts(3, lost=1, duplicated=1, different=1),
        "online_features": ErrorCounts(1, 0, 0, 1),
        "lists": ErrorCounts(1, 1, 1, 0),
        "list_contents": ErrorCounts(1, 0, 0, 1),
        "learned_events": ErrorCounts(3, 1, 0, 0),
        "checkpoint_files": ErrorCounts(1, 0, 0, 1),
    }
