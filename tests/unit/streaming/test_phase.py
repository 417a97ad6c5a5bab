"""The phase of a flow: ready after all partitions are read to their end."""

import pytest
from prometheus_client import REGISTRY

from streaming import phase
from streaming.phase import Phase


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phase._State, "unread", set())
    phase.enter(Phase.STARTING)


def test_flow_is_ready_once_every_partition_is_read_to_its_end() -> None:
    phase.catch_up()
    phase.reads("user-events", 0, 5)
    phase.reads("user-events", 1, 7)
    phase.reached_end("user-events", 0)
    assert phase.current() == Phase.CATCHING_UP
    phase.reached_end("user-events", 1)
    assert phase.current() == Phase.READY
    states = {one: REGISTRY.get_sample_value("premiere_flow_phase", {"premiere_flow_phase": one}) for one in Phase}
    assert states == {one: float(one == Phase.READY) for one in Phase}


def test_publish_needs_a_version_too() -> None:
    phase.catch_up(is_ready_at_end=False)
    phase.reads("activity", 0, 0)
    phase.reached_end("activity", 0)
    assert phase.current() == Phase.CATCHING_UP
    phase.enter(Phase.READY)
    phase.reached_end("activity", 0)
    assert phase.current() == Phase.READY


def test_compiling_is_a_phase_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "streaming.phase")
    with phase.compiling():
        assert phase.current() == Phase.COMPILING
    assert phase.current() == Phase.STARTING
    assert [record.getMessage().split()[0] for record in caplog.records] == ["Compiling", "Compiled"]
