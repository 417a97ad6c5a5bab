"""The stream state is all that the learner knows without gradients: catalog, admission, counters and user store.

Its parts grow and evict together. The ranker reads it and the backbone trains beside it, so that several models can be
compared on one state.

L events of one history · V titles
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.actions import LIKING
from model.settings import StreamStateSettings
from model.state import counters as counting
from model.state.admission import TitleAdmission
from model.state.catalog import Catalog
from model.state.embedding_space import EmbeddingSpace
from model.state.event_evidence import EvidenceRatio
from model.state.static_signals import new_static_signals, update_static_signals
from model.state.user_store import UserStore

MIN_REFRESHED: Final = 2_048  # titles whose signals and vectors are computed anew in turn, per micro-batch
REFRESHED_SHARE: Final = 50  # 1/50 of the catalog, if that is more: after 50 micro-batches each title had its turn
SETTLING_MS: Final = counting.DAY_MS  # from a launch until the title is a text neighbor without an event
WAITING_SHARE: Final = 20  # at most 1/20 of `max_titles` ids wait for their launch
_LIKING = np.array(LIKING, np.float32)  # by action code


class TitleMetadata(NamedTuple):
    """A title as a record of the learner log describes it."""

    title: str
    semantic: NDArray[np.float32]  # text embedding, empty without text
    genres: Sequence[str]
    year: int | None
    released: int | None  # ms, from metadata only
    withdrawn: bool
    stamp: int = 0  # us, orders the records of one title; 0: each record counts
    recorded: int = 0  # ms, when the log took the launch


class UserUpdate(NamedTuple):
    """A user's history with its new events."""

    user: str
    titles: Sequence[str]  # in order of event time, as are times and actions
    times: Sequence[int]  # ms
    actions: Sequence[int]  # codes
    new: Sequence[int]  # indices of the new events
    order: Sequence[int]  # sort keys of the new events across users
    recorded: Sequence[int] = ()  # ms, when the log took each new event; empty: at the time of the event


@dataclass(frozen=True)
class History:
    """A user's history as catalog rows, oldest event first."""

    user: str
    rows_L: NDArray[np.int64]  # UNKNOWN_ROW for titles that are not in the catalog
    times_L: NDArray[np.int64]  # ms
    actions_L: NDArray[np.int64]  # codes

    def before(self, index: int) -> "History":
        """Return the history before entry `index`."""
        return History(self.user, self.rows_L[:index], self.times_L[:index], self.actions_L[:index])

    def after(self, index: int) -> "History":
        """Return the history from entry `index` on."""
        return History(self.user, self.rows_L[index:], self.times_L[index:], self.actions_L[index:])


class StreamState:
    """Catalog, counters and user store, which share the catalog's rows, and the titles that wait for a row."""

    def __init__(self, settings: StreamStateSettings) -> None:
        self.settings = settings
        self.catalog = Catalog(settings.d_text)
        self.counters = counting.empty_counters(self.catalog.capacity)
        self.user_store = UserStore(1024, self.catalog.capacity, settings.max_users, settings.max_seen)
        capacity = max(1, settings.max_titles // WAITING_SHARE)
        self.admission = TitleAdmission(capacity, settings.min_users_before_launch)
        self.evidence = EvidenceRatio(settings.evidence)
        self.static_VF = new_static_signals(self.catalog.capacity)
        self.changed_rows: set[int] = set()  # titles added, launched or with an event since the last refresh
        self.next_refreshed = 0  # the row whose turn it is
        self.text_space = EmbeddingSpace("", settings.d_text)
        self.sequence = 0  # records of the learner log so far
        self.events = 0  # events counted so far
        self.waiting_title_events = 0  # events so far on titles that waited for their launch
        self.evicted_titles = 0  # titles evicted so far

    def restart_text(self, space: EmbeddingSpace) -> None:
        """Drop all text embeddings, and take those of another space from now on."""
        self.text_space, self.settings = space, replace(self.settings, d_text=space.width)
        self.catalog.restart_text(space.width)

    def ensure_row(self, title: str) -> int:
        """Return the title's row, added if it is missing; the arrays of all parts grow with the catalog."""
        is_new = title not in self.catalog.rows
        row = self.catalog.ensure_row(title, self.sequence)
        if is_new:
            self.changed_rows.add(row)
        if self.catalog.capacity > len(self.counters.popularity_VZ):
            added = new_static_signals(self.catalog.capacity - len(self.static_VF))
            self.static_VF = np.concatenate([self.static_VF, added])
            self.counters = counting.resized(self.counters, self.catalog.capacity)
            self.user_store.grow_titles(self.catalog.capacity)
        return row

    def admit(self, title: str, user: str) -> bool:
        """Whether an event of the user on the title can be learned; the title then has a row.

        A title without a row waits for its launch or for events of enough users.
        """
        if title not in self.catalog.rows and not self.admission.admit(title, user):
            self.waiting_title_events += 1
            return False
        self.ensure_row(title)
        return True

    def launch(self, titles: Iterable[TitleMetadata]) -> None:
        """Apply launches, changes and withdrawals of titles, one record of the learner log each.

        A record is skipped if one of its title with the same or a newer stamp was applied: a flow repeats records
        after a crash, and an old one would bring a withdrawn title back. A withdrawal of a title without a row is
        skipped too: such a title is not recommended, and anyone who can withdraw can invent titles.
        """
        rows = []
        for title in titles:
            if self._is_repeated(title) or (title.withdrawn and title.title not in self.catalog.rows):
                continue
            self.sequence += 1
            row = self.ensure_row(title.title)
            self.admission.remove(title.title)
            self.catalog.stamp_V[row] = title.stamp
            if title.withdrawn:
                self.catalog.withdraw(row)
                if len(title.semantic):  # histories contain the title
                    self.catalog.set_text(row, title.semantic)
                continue
            semantic = title.semantic if len(title.semantic) else None
            self.catalog.launch(row, semantic, title.genres, title.year, title.released, self.sequence, title.recorded)
            rows.append(row)
        self.changed_rows.update(rows)
        self.catalog.update_texts(rows, self._settled())

    def refresh(self, in_turn: bool = True) -> NDArray[np.int64]:
        """Compute the static signals of the changed titles anew, and return their rows, for encoders to do the same.

        With `in_turn`, also those of the titles whose turn it is. Which these are depends on the log alone.
        """
        titles, row_M = len(self.catalog), np.array(sorted(self.changed_rows), np.int64)
        if in_turn and titles:
            size = min(max(MIN_REFRESHED, titles // REFRESHED_SHARE), titles)
            start = self.next_refreshed % titles
            row_M = np.union1d(row_M, np.arange(start, start + size) % titles)
            self.next_refreshed = (start + size) % titles
        update_static_signals(self.static_VF, self.counters, self.catalog.count_V[:titles], row_M)
        self.changed_rows = set()
        return row_M

    def _settled(self) -> NDArray[np.int64]:
        """The titles that have settled since: they have an event, or launched a day ago by the popularity clock."""
        catalog = self.catalog
        row_M = np.flatnonzero(~catalog.text_neighbors.settled_V[: len(catalog)])
        has_event_M = self.user_store.interactions.title_count_V[row_M] > 0
        age_M = self.counters.now_Z[0] - catalog.launched_ms_V[row_M]
        settled_M: NDArray[np.int64] = row_M[has_event_M | (catalog.launched_V[row_M] & (age_M >= SETTLING_MS))]
        return settled_M

    def _is_repeated(self, title: TitleMetadata) -> bool:
        row = self.catalog.rows.get(title.title)
        return row is not None and 0 < title.stamp <= self.catalog.stamp_V[row]

    def evict_titles(self) -> NDArray[np.int64]:
        """Evict titles beyond `max_titles` and return their former rows."""
        rows = self.catalog.rows_to_evict(self.settings.max_titles)
        if len(rows):
            self.catalog.evict(rows)
            counting.evict_titles(self.counters, rows)
            self.user_store.evict_titles(rows)
            self.evicted_titles += len(rows)
        return rows

    def erase_user(self, user: str) -> None:
        """Remove the data of one user; counters of titles keep the user's influence."""
        self.user_store.erase_user(user)
        self.admission.erase_user(user)

    def count_event(self, history: History, row: int, ts: int, action: int = 0, repeat: int = 1) -> None:
        """Count one event of `history.user` on the title at `row`; `history` ends before the event.

        `ts` is the time of the popularity clock (ms), and `repeat` the event's number among the user's events on the
        title within a day.
        """
        self.events += 1
        counting.advance_clocks(self.counters, ts, self.events)
        user_events = self.user_store.event_count(history.user)
        evidence = self.evidence.weigh(user_events, repeat)
        recent_L = np.ascontiguousarray(history.rows_L[: -counting.COOCCURRENCE_EVENTS - 1 : -1].astype(np.int32))
        context = counting.EventContext(float(_LIKING[action]), user_events, evidence)
        weight = counting.count_event(self.counters, counting.event_weight(self.counters), row, recent_L, context)
        self.catalog.count_V[row] += weight
        self.changed_rows.add(row)
        self.user_store.add(history.user, row)

    def state_dict(self) -> dict[str, Any]:
        n = len(self.catalog)
        return {
            "catalog": self.catalog.state_dict(),
            "counters": counting.counters_state(self.counters, n),
            "user_store": self.user_store.state_dict(n),
            "admission": self.admission.state_dict(),
            "evidence": self.evidence.state_dict(),
            "static_VF": self.static_VF[:n].copy(),
            "changed_rows": sorted(self.changed_rows),
            "next_refreshed": self.next_refreshed,
            "text_encoder": self.text_space.encoder,
            "sequence": self.sequence,
            "events": self.events,
            "waiting_title_events": self.waiting_title_events,
            "evicted_titles": self.evicted_titles,
        }

    @staticmethod
    def text_width(state: Mapping[str, Any]) -> int:
        """The width of the text embeddings in a state."""
        return int(state["catalog"]["semantic_VE"].shape[1])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned, with the width of its text embeddings."""
        self.restart_text(EmbeddingSpace(state.get("text_encoder", ""), self.text_width(state)))
        self.catalog.load_state_dict(state["catalog"])
        self.counters = counting.empty_counters(self.catalog.capacity)
        counting.load_counters(self.counters, state["counters"])
        self.static_VF = new_static_signals(self.catalog.capacity)
        self.static_VF[: len(self.catalog)] = state["static_VF"]
        self.changed_rows, self.next_refreshed = set(state["changed_rows"]), state["next_refreshed"]
        self.user_store.grow_titles(self.catalog.capacity)
        self.user_store.load_state_dict(state["user_store"])
        self.admission.load_state_dict(state["admission"])
        self.evidence.load_state_dict(state["evidence"])
        self.sequence, self.events = state["sequence"], state["events"]
        self.waiting_title_events, self.evicted_titles = state["waiting_title_events"], state["evicted_titles"]
