"""Take out of a recovery store what the engine keeps of states that were given up: their keys.

The engine marks a state that ends with an empty snapshot under its key, and never removes the mark. A key of `features`
is a viewer's id, so that of a forgotten viewer would stay for ever. An empty snapshot with none before it says what no
snapshot says. Done before the engine opens the store, at each start of a flow.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

WAIT: Final = 10.0  # seconds for another worker of the same flow that has the file
_EMPTY: Final = """
    DELETE FROM snaps WHERE ser_change IS NULL AND NOT EXISTS (
        SELECT 1 FROM snaps AS before
        WHERE before.step_id = snaps.step_id AND before.state_key = snaps.state_key
        AND before.snap_epoch < snaps.snap_epoch AND before.ser_change IS NOT NULL
    )
"""


def sweep(store: Path) -> int:
    """Remove the keys of states that ended from a store that nobody writes; how many."""
    gone = 0
    for file in sorted(store.glob("*.sqlite3")):
        with closing(sqlite3.connect(file, timeout=WAIT)) as database:
            database.execute("PRAGMA secure_delete = ON")
            gone += database.execute(_EMPTY).rowcount
            database.commit()
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return gone
