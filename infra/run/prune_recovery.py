"""Removes the keys of discarded states from a recovery store.

When a state is discarded, the engine writes an empty snapshot under its key and never deletes it. The keys of
`features` are user ids, so the id of an erased user would stay forever. An empty snapshot without an earlier non-empty
one is equivalent to no snapshot and can be deleted. This runs at each start of a flow, before the engine opens the
store.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

LOCK_TIMEOUT_S: Final = 10.0  # another worker of the same flow may hold the file
_DELETE_ENDED_STATES: Final = """
    DELETE FROM snaps WHERE ser_change IS NULL AND NOT EXISTS (
        SELECT 1 FROM snaps AS before
        WHERE before.step_id = snaps.step_id AND before.state_key = snaps.state_key
        AND before.snap_epoch < snaps.snap_epoch AND before.ser_change IS NOT NULL
    )
"""


def prune_recovery_store(store: Path) -> int:
    """Delete the keys of discarded states from a store without a writer. Returns their number."""
    deleted = 0
    for file in sorted(store.glob("*.sqlite3")):
        with closing(sqlite3.connect(file, timeout=LOCK_TIMEOUT_S)) as database:
            database.execute("PRAGMA secure_delete = ON")
            deleted += database.execute(_DELETE_ENDED_STATES).rowcount
            database.commit()
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return deleted
