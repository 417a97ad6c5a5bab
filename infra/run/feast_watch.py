"""Watches Feast's registry and online store: another Feast program may remove our views and rows (`feast teardown`).

The definitions are applied again, and the flow writes its rows again (`streaming.stores.lost_rows`). Each worker keeps
a mark beside its rows. If the mark is missing, the rows were deleted, by any program, and possibly before this start.
The mark also says whether all rows have been written since. A loss counts only if two checks in a row find something
missing, because a deletion may be under way.
"""

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from streaming.stores.lost_rows import LostRows
from streaming.stores.retry import answer_of, is_outage

if TYPE_CHECKING:
    from feast import FeatureStore  # its import takes one second

INTERVAL_S: Final = 5.0  # between two looks
WRITING: Final = "writing"  # marks
WRITTEN: Final = "written"

log: Final = logging.getLogger(__name__)


def start_feast_watch(
    store: "FeatureStore", view: str, writer: str, lost: LostRows, stop: threading.Event, interval_s: float = INTERVAL_S
) -> None:
    """Look in a thread until `stop` is set; `writer` names this worker of the flow that writes the view."""
    watch = _Watch(store, view, writer, lost)
    threading.Thread(target=_run, args=(watch, stop, interval_s), name="feast watch", daemon=True).start()


def _run(watch: "_Watch", stop: threading.Event, interval_s: float) -> None:
    while True:
        try:
            watch.look_at_views()
            watch.look_at_rows()
        except RedisError as error:  # the sink waits for Redis, and says so
            if not is_outage(error):
                log.warning("The rows in the online store cannot be watched (%s).", answer_of(error))
        except Exception:  # of Feast, while another program changes the registry
            log.warning("Feast's registry cannot be read; trying again.", exc_info=True)
        if stop.wait(interval_s):
            return


class _Watch:
    def __init__(self, store: "FeatureStore", view: str, writer: str, lost: LostRows) -> None:
        self.store, self.view, self.writer, self.lost = store, view, writer, lost
        self.complete: tuple[int, int] | None = None  # the registry that had all views
        self.views_missing = self.mark_missing = False  # at the last look
        self.was_marked = False  # at an earlier look

    def look_at_views(self) -> None:
        """Apply the definitions again if views are missing."""
        from features.store import apply_again, missing_views

        found = self._registry()
        if found is not None and found == self.complete:
            return
        if not missing_views(self.store):
            self.complete, self.views_missing = found, False
        elif self.views_missing:
            apply_again(self.store)
            self.views_missing = False
        else:
            self.views_missing = True

    def look_at_rows(self) -> None:
        """Count a loss if the mark is missing, or if its rows were not all written before this start."""
        from features.row_mark import read_mark, write_mark

        mark = read_mark(self.store, self.view, self.writer)
        if mark is None and not self.mark_missing:
            self.mark_missing = True
            return
        self.mark_missing = False
        if mark is None:
            if self.was_marked:
                log.warning("The rows of %s were deleted from the online store: writing them again.", self.view)
            write_mark(self.store, self.view, self.writer, WRITING)  # first: a later loss deletes it
        self.was_marked = True
        if mark is None or (mark == WRITING and not self.lost.losses):
            self.lost.losses += 1
        elif mark == WRITING and self.lost.restored == self.lost.losses:
            write_mark(self.store, self.view, self.writer, WRITTEN)

    def _registry(self) -> tuple[int, int] | None:
        """Identifies the content of the registry file; None if there is none."""
        assert self.store.repo_path is not None
        try:
            found = (Path(self.store.repo_path) / "registry.db").stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns
