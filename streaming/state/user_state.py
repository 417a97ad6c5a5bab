"""What `features` keeps of one user: the history, and the time up to which the user is erased.

A request erases the events that were appended up to its own append time. Events and requests come from two topics, so
either may be read first. Events up to the erasure time are dropped whenever they are read, and the later ones are kept:
they make a new history. If they were read before the request, their rows contain erased events: the offline log drops
those rows (streaming/stores/erasure.py), and the request writes new ones. A request that is not later than an earlier
one changes nothing.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, NamedTuple

from prometheus_client import Counter

from streaming.errors import StreamError
from streaming.records import ACTIVITY_HISTORY, Activity, UserErasure
from streaming.state.expiry import DAY_MS
from streaming.state.user_history import UNIX_EPOCH, HistoryState, UserEvent, UserHistory, UserRow

# New events in one activity record, as a fraction of the history's size. The rest is context for the oldest new event.
MAX_NEW_FRACTION: Final = 0.5
NEW_USER_EVENTS: Final = 5  # a user with fewer events is a new user
NEVER: Final = -(2**62)  # erasure time of a user who was not erased, ms
STATE_FORMAT: Final = 4

EVENTS: Final = Counter("premiere_events_total", "Events added to a user's history.")
DUPLICATES: Final = Counter("premiere_duplicates_total", "Events dropped because their event_id was already seen.")
LATE_EVENTS: Final = Counter("premiere_late_events_total", "Events older than the newest event of the same user.")
USER_ERASURES: Final = Counter("premiere_user_erasures_total", "Requests to erase a user.")
ERASED_EVENTS: Final = Counter(
    "premiere_erased_events_total", "Events dropped because they were read after the request that erases them."
)

SavedUser = tuple[int, str, int, HistoryState | None]  # format, user, erasure time, history


class Lifetimes(NamedTuple):
    """How long a state is kept after the user's last event, and how many states a process keeps."""

    user_ms: int = 365 * DAY_MS
    new_user_ms: int = 30 * DAY_MS  # users with fewer than NEW_USER_EVENTS events
    event_ms: int = 15 * DAY_MS  # how long Kafka may still deliver an event: an erasure time is kept as long
    max_users: int = 1_000_000


class Update(NamedTuple):
    """The changes of one user."""

    rows: list[UserRow]  # one per event
    records: list[Activity | UserErasure]  # for the learner log: one activity, more if there are very many events
    erasures: list[UserRow]  # one per erasure request
    online: list[UserRow]  # for the online store: the last erasure request, then the newest row


class UserState:
    """The state of one user."""

    __slots__ = ("erased_at", "history", "size", "user")

    def __init__(self, size: int = ACTIVITY_HISTORY, saved: SavedUser | None = None) -> None:
        """A new user, or the one of a snapshot. Raises StreamError on an unknown format."""
        if saved is not None and saved[0] != STATE_FORMAT:
            raise StreamError(
                f"Another version wrote this user's state (format {saved[0]}): run that version, or remove the flow's "
                "recovery folder to process the topics again."
            )
        _, self.user, self.erased_at, history = saved or (STATE_FORMAT, "", NEVER, None)
        self.size = size
        self.history = None if history is None else UserHistory(size, history)  # None: no events

    def apply(self, items: Sequence[UserEvent | UserErasure]) -> Update:
        """Apply events and erasure requests in their order."""
        self.user = items[0].user if items else self.user
        update, events = Update([], [], [], []), list[UserEvent]()
        for item in items:
            if isinstance(item, UserEvent):
                events.append(item)
                continue
            USER_ERASURES.inc()
            if item.appended > self.erased_at:
                self._add(events, update)
                self._erase(item, update)
                events = []
        self._add(events, update)
        return update

    def restore(self, since: int, update: Update) -> None:
        """Add the present row for the online store; none if there was no event since then (ms)."""
        if self.history is not None and max(self.history.appended) >= since:
            _set_online(update, [self.history.present_row(self.user)])

    def snapshot(self) -> SavedUser:
        """The state as immutable values."""
        return STATE_FORMAT, self.user, self.erased_at, None if self.history is None else self.history.snapshot()

    def ends_at(self, lifetimes: Lifetimes) -> int:
        """When the state can be dropped, if no more records arrive, ms."""
        if self.history is None:
            return self.kept_until(lifetimes)
        is_new_user = self.history.count < NEW_USER_EVENTS
        lifetime = lifetimes.new_user_ms if is_new_user else lifetimes.user_ms
        return max(max(self.history.appended) + lifetime, self.kept_until(lifetimes))

    def kept_until(self, lifetimes: Lifetimes) -> int:
        """Until when an event may arrive that the user's erasure covers, ms."""
        return self.erased_at + lifetimes.event_ms

    def _add(self, events: Sequence[UserEvent], update: Update) -> None:
        kept = [event for event in events if event.appended > self.erased_at]
        ERASED_EVENTS.inc(len(events) - len(kept))
        if not kept:
            return
        history = self.history = self.history or UserHistory(self.size)
        max_new, added = max(1, int(self.size * MAX_NEW_FRACTION)), len(update.rows)
        for start in range(0, len(kept), max_new):
            rows = [row for event in kept[start : start + max_new] if (row := history.apply(event))]
            if rows:
                update.rows.extend(rows)
                update.records.append(history.activity(kept[0].user))
        _count(update.rows[added:], len(kept))
        _set_online(update, update.rows[added:])

    def _erase(self, request: UserErasure, update: Update) -> None:
        self.erased_at = request.appended
        mark = {
            "user_id": request.user,
            "appended": UNIX_EPOCH + timedelta(milliseconds=request.appended),
            "partition": request.partition,
        }
        update.records.append(request)
        update.erasures.append(mark)
        update.online[:] = [mark]
        if self.history is not None:
            covers_rows = self.history.oldest <= request.appended
            history, rows = self.history.erase(request.user, request.appended)
            if not rows:
                self.history = None
                return
            self.history = history
            update.rows.extend(rows if covers_rows else ())
            _set_online(update, rows)
            update.records.append(history.activity(request.user))


def _set_online(update: Update, rows: Sequence[UserRow]) -> None:
    """Let the last of these rows replace the row that the online store would get."""
    if rows:
        update.online[:] = [*update.erasures[-1:], rows[-1]]


def _count(rows: Sequence[UserRow], events: int) -> None:
    EVENTS.inc(len(rows))
    if duplicates := events - len(rows):
        DUPLICATES.inc(duplicates)
    if late := sum(row["event_ms"] < row["last_event_ms"] for row in rows):
        LATE_EVENTS.inc(late)
