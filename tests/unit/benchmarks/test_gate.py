"""The logs and faults of the gate's benchmark."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks import gate
from infra.data.datasets import Dataset
from infra.data.simulate import simulate
from streaming.records import Activity, Title, decode_log

torch.set_num_threads(1)


def encode(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.full((len(texts), 256), 1 / 16, np.float32)


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setattr(gate, "FAULT_START", 150)
    monkeypatch.setattr(gate, "FAULT_STOP", 200)
    return simulate(users=20, titles=40, events=300)


def test_log_has_each_event_and_launches_titles_before_their_events(data: Dataset) -> None:
    records = [decode_log(message.value or b"") for message in gate.messages_of(data, encode)]
    assert sum(isinstance(record, Activity) for record in records) == len(data)
    launched: set[str] = set()
    for record in records:
        launched |= {record.title} if isinstance(record, Title) else set()
        assert not isinstance(record, Activity) or record.titles[-1] in launched


def test_faults_change_only_the_faulty_events(data: Dataset) -> None:
    for faulty in (gate.shuffled(data), gate.with_fake_users(data)):
        changed = np.flatnonzero((faulty.user != data.user) | (faulty.title != data.title))
        assert 150 <= changed.min() < changed.max() < 200


def test_version_after_a_fault_is_in_service_without_a_gate(data: Dataset) -> None:
    log = gate.faulty_log(data, encode)
    outcome = gate.run_fault(log, has_gate=False, breaks=gate.make_not_finite)
    assert 0 <= outcome.faulty_s <= 50 / gate.EVENTS_PER_SECOND
    assert outcome.returns == 0
    assert {row.variant for row in gate.cost_rows(log.messages)} >= {"learner", "gate"}
