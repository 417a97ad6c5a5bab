"""When the offline log is compacted: in a thread of the flow `features`, and by `premiere compact`.

The thread compacts at the start of the flow and then every hour. An erasure request does not wait for the hour, because
Feast reads an erased user's rows until a run has removed them. A run passes over all files, so all waiting requests
share one, and runs for requests take at most a tenth of the time: a request is applied within seconds while the log is
small, and within the hour in any case. An error is logged, the flow continues, and the next run is an hour later.
`streaming/stores/compaction.py` has the algorithm.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infra.errors import PremiereError
from infra.local import data_lock
from infra.settings import Settings
from streaming.errors import StreamError
from streaming.topics import USER_EVENTS, topics

if TYPE_CHECKING:
    from streaming.stores.compaction import CompactionResult

log = logging.getLogger(__name__)

COMPACTION_INTERVAL_S: Final = 3600.0
POLL_INTERVAL_S: Final = 2.0  # between two checks for new erasure requests
PAUSE_PER_RUN: Final = 9.0  # after each second of a run, the seconds in which new erasure requests start none
RETENTION_MARGIN_DAYS: Final = 8  # Kafka deletes whole segments, of up to a week, so records outlive their retention
DAY_MS: Final = 86_400_000


def offline_folder(settings: Settings) -> Path:
    """The folder of the offline log."""
    from features.definitions import OFFLINE_FOLDER

    return settings.data_dir.resolve() / "feast" / OFFLINE_FOLDER


def event_retention_days() -> int:
    """Days after which an event can no longer be read from Kafka."""
    retention_ms = next(topic.config for topic in topics() if topic.name == USER_EVENTS)["retention.ms"]
    return int(retention_ms) // DAY_MS + RETENTION_MARGIN_DAYS


def compact_offline_log(settings: Settings, today: date | None = None) -> "list[CompactionResult]":
    """Compact once. Raises CompactionRunningError, DamagedFileError, OSError."""
    from features.definitions import USER_ERASURES, user_activity
    from streaming.stores import compaction

    today = today or datetime.now(UTC).date()
    keep_days = {user_activity.name: settings.offline_days}
    return compaction.compact(offline_folder(settings), today, keep_days, USER_ERASURES, event_retention_days())


def compact_now(settings: Settings, print_line: Callable[[str], object]) -> None:
    """`premiere compact`. Raises PremiereError."""
    with data_lock.hold_shared(settings.data_dir) or nullcontext():
        try:
            results = compact_offline_log(settings)
        except (StreamError, OSError) as error:
            raise PremiereError(f"The offline log was not compacted. {error}") from error
    for result in results:
        print_line(
            f"{result.name:<16} {result.merged} files merged into {result.days} days, {result.erased} rows of erased "
            f"users removed, {result.expired} days expired"
        )


def start_compaction_thread(settings: Settings, stop: threading.Event) -> None:
    """Compact the offline log in a thread until `stop` is set.

    A file of erasure requests is due at the second check that finds it: the other sink has then published the rows of
    its epoch. A row that appears even later is removed by the next run.
    """
    threading.Thread(target=_compact_repeatedly, args=(settings, stop), name="compaction", daemon=True).start()


def _compact_repeatedly(settings: Settings, stop: threading.Event) -> None:
    from features.definitions import USER_ERASURES

    folder, applied, found = offline_folder(settings) / USER_ERASURES, set[str](), set[str]()
    due = pause_end = time.monotonic()
    while not stop.wait(POLL_INTERVAL_S):
        settled, found = found, {path.name for path in folder.glob("p*.parquet")}
        started = time.monotonic()
        if started >= due or (settled - applied and started >= pause_end):
            _compact_and_log(settings)
            finished = time.monotonic()
            applied, due = settled, finished + COMPACTION_INTERVAL_S
            pause_end = finished + PAUSE_PER_RUN * (finished - started)


def _compact_and_log(settings: Settings) -> None:
    from streaming.stores.compaction import CompactionRunningError

    try:
        for result in compact_offline_log(settings):
            if any(result[1:]):
                log.info("Offline log: %s", result)
    except CompactionRunningError:
        log.info("Another process is compacting the offline log.")
    except Exception:
        log.exception("The offline log was not compacted; the next attempt is in %g s.", COMPACTION_INTERVAL_S)
