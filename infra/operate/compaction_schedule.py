"""The offline log kept in order beside the flow `features`, and by hand: when `streaming/stores/compaction.py` runs, on what.

At the flow's start, each hour, and soon after somebody asked to be forgotten: the mark of that is published with its
epoch, so a thread looks for new marks, and runs again a little later, since the user's last rows may come out after it.
Whatever goes wrong is said and tried again in an hour; the flow goes on.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infra.errors import PremiereError
from infra.local import data_lock
from infra.settings import Settings
from streaming.kafka.client import StreamError
from streaming.topics import USER_EVENTS, topics

if TYPE_CHECKING:
    from streaming.stores.compaction import Done

log = logging.getLogger(__name__)

EVERY: Final = 3600.0  # seconds between two runs
LOOK: Final = 2.0  # seconds between two looks for new marks
AFTER: Final = (0.0, 5.0, 30.0)  # seconds after a new mark at which it runs
MARGIN: Final = 8  # days that Kafka may keep a record beyond its time: it removes whole segments, of a week
DAY_MS: Final = 86_400_000


def folder(settings: Settings) -> Path:
    """The offline log's."""
    from features.definitions import OFFLINE

    return settings.data_dir.resolve() / "feast" / OFFLINE


def settled() -> int:
    """Days after which an event cannot be read from Kafka again."""
    kept = next(topic.config for topic in topics() if topic.name == USER_EVENTS)["retention.ms"]
    return int(kept) // DAY_MS + MARGIN


def compact(settings: Settings, today: date | None = None) -> "list[Done]":
    """One run. Raises BusyError, DamagedError, OSError."""
    from features.definitions import FORGOTTEN, user_activity
    from streaming.stores import compaction

    today = today or datetime.now(UTC).date()
    keep = {user_activity.name: settings.offline_days}
    return compaction.compact(folder(settings), today, keep, FORGOTTEN, settled())


def run_compact(settings: Settings, say: Callable[[str], None]) -> None:
    """`premiere compact`. Raises PremiereError."""
    _held = data_lock.hold(settings.data_dir)
    try:
        done = compact(settings)
    except (StreamError, OSError) as error:
        raise PremiereError(f"The offline log was not compacted. {error}") from error
    for one in done:
        say(
            f"{one.name:<16} {one.merged} files merged into {one.days} days, {one.erased} rows of forgotten viewers"
            f" removed, {one.expired} days expired"
        )


def keep_compact(settings: Settings, stop: threading.Event) -> None:
    """Begin to keep the log in order, in a thread, until `stop`."""
    threading.Thread(target=_keep, args=(settings, stop), name="compaction", daemon=True).start()


def _keep(settings: Settings, stop: threading.Event) -> None:
    from features.definitions import FORGOTTEN

    root, seen, due = folder(settings) / FORGOTTEN, set[str](), [time.monotonic()]
    while not stop.wait(LOOK):
        now, marks = time.monotonic(), {path.name for path in root.glob("p*.parquet")}
        if marks - seen:
            due += [now + after for after in AFTER]
            seen = marks
        if any(at <= now for at in due):
            _once(settings)
            due = [at for at in due if at > now] or [now + EVERY]


def _once(settings: Settings) -> None:
    from streaming.stores.compaction import BusyError

    try:
        for one in compact(settings):
            if any(one[1:]):
                log.info("Offline log: %s", one)
    except BusyError:
        log.info("The offline log is being compacted by somebody else")
    except Exception:
        log.exception("The offline log was not compacted; the next try is in an hour")
