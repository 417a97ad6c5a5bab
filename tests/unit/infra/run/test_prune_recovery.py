"""Keys of discarded states are deleted from a recovery store."""

import sqlite3
import uuid
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, run_main

from infra.run.prune_recovery import prune_recovery_store
from streaming.kafka.source import Message
from streaming.state.expiry import DAY_MS
from streaming.state.user_state import Lifetimes
from tests.support.features import NOW, FeaturesRun, erasure_request, event


def test_ended_state_of_an_erased_user_leaves_nothing_in_the_recovery_store(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    config = RecoveryConfig(str(tmp_path), timedelta(0))
    user, run = uuid.uuid4().hex, FeaturesRun()
    inputs: list[Any] = [[event(user, "a", NOW, 0)], [event("v", "a", NOW, 1)], []]
    requests: list[Any] = [[], [], [erasure_request(user, 2)], TestingSource.EOF()]

    def run_more(messages: list[list[Message]]) -> None:
        inputs.extend([*messages, TestingSource.EOF()])
        flow = run.flow(TestingSource(inputs), TestingSource(requests))
        run_main(flow, epoch_interval=timedelta(0), recovery_config=config)

    run_more([[event("v", f"t{n}", NOW, 3 + n)] for n in range(9)])
    assert prune_recovery_store(tmp_path) == 0  # the time of the request is kept while Kafka may deliver earlier events
    later = Lifetimes().event_ms + DAY_MS
    run_more([[event("v", f"u{n}", NOW, later + n)] for n in range(9)])
    assert prune_recovery_store(tmp_path) == 1
    assert prune_recovery_store(tmp_path) == 0
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"features.histories" in stored
    assert user.encode() not in stored
    run_more([[event(user, "b", NOW, later + 20), event("v", "b", NOW, later + 21)]])
    assert [run.rows()[0, later + offset]["event_count"] for offset in (20, 21)] == [1, 20]


@pytest.mark.parametrize(
    ("snapshots", "kept"),
    [
        ({1: b"state"}, [1]),
        ({1: None}, []),
        ({1: b"state", 2: None}, [1, 2]),  # a start at epoch 1 restores the state, a later one must not
        ({1: None, 2: b"state"}, [2]),
        ({1: None, 2: b"state", 3: None}, [2, 3]),
    ],
)
def test_empty_snapshot_is_deleted_unless_a_state_precedes_it(
    tmp_path: Path, snapshots: dict[int, bytes | None], kept: list[int]
) -> None:
    init_db_dir(tmp_path, 1)
    (file,) = tmp_path.glob("*.sqlite3")
    insert = "INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change) VALUES (?, ?, ?, ?)"
    other = [("step", "other user", 0, b"state"), ("other step", "user", 0, b"state")]
    with closing(sqlite3.connect(file)) as database, database:
        database.executemany(insert, [*other, *(("step", "user", epoch, state) for epoch, state in snapshots.items())])
    assert prune_recovery_store(tmp_path) == len(snapshots) - len(kept)
    with closing(sqlite3.connect(file)) as database:
        rows = database.execute("SELECT snap_epoch FROM snaps WHERE step_id = 'step' AND state_key = 'user'").fetchall()
        assert sorted(epoch for (epoch,) in rows) == kept
        assert database.execute("SELECT count(*) FROM snaps").fetchone() == (len(kept) + len(other),)
