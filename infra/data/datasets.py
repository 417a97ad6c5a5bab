"""Datasets: events in the protocol's order, and titles with launch times.

Order: by ts; equal times in the fixed order of blake2b-64 of "user:item". In many files ties ascend by id, which a
sequence model would learn. A title launches at its release date (else 1 January of its year, else the stream's start),
never before the stream's start, and at the latest just before its first event. If titles launched at their first event,
the only candidate without events would be the answer, and a model would find that leak.

Titles without any event are launched too, as in a real catalog: at their date, or at the end of the stream if that is
earlier. `launches_with_events` leaves them out: evaluation ranks among titles that have an event at some time, as the
published baselines of this protocol do.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from infra.data.columns import actions, dates, genres, ids, ratings, texts, times, years
from infra.data.tables import DataError, Table, read_table
from model.actions import ACTIONS, TARGET_WEIGHTS
from streaming.records import MAX_LAUNCH_BYTES, MAX_RATING, Event, Launch, to_json

__all__ = ["DataError", "Dataset", "from_tables", "load"]

_EMBEDDED: Final = {"title", "genres", "overview"}  # always embedded; `text` adds columns
_ACTION_NAMES: Final = {meaning.code: name for name, meaning in ACTIONS.items()}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Events in order, as columns, and launches by time. Times in ms."""

    name: str
    simulated: bool
    users: list[str]
    titles: list[str]  # titles with at least one event
    user: NDArray[np.int32]  # rows of `users`
    title: NDArray[np.int32]  # rows of `titles`
    ts: NDArray[np.int64]
    rating: NDArray[np.float64]  # NaN: none
    action: NDArray[np.uint8]  # codes of ACTIONS; a rating takes precedence
    launches: list[Launch]
    launched: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ts)

    def event(self, index: int) -> Event:
        """The event as it is produced."""
        rating = float(self.rating[index])
        return Event(
            user=self.users[self.user[index]],
            title=self.titles[self.title[index]],
            ts=int(self.ts[index]),
            action=_ACTION_NAMES[int(self.action[index])],
            rating=None if np.isnan(rating) else rating,
        )

    def targets_before(self, stop: int) -> int:
        """Number of events before index `stop` whose action is a training target; every rating is one."""
        weight_N = np.array(TARGET_WEIGHTS)[self.action[:stop]]
        return int(np.count_nonzero((weight_N > 0) | ~np.isnan(self.rating[:stop])))

    def slice(self, start: int, stop: int | None = None) -> "Dataset":
        """Events [start, stop) with all launches up to the last event."""
        kept = slice(start, stop)
        columns = {name: getattr(self, name)[kept] for name in ("user", "title", "ts", "rating", "action")}
        until = len(self.launches)
        if stop is not None and stop < len(self):
            until = int(np.searchsorted(self.launched, columns["ts"][-1], "right")) if len(columns["ts"]) else 0
        return replace(self, **columns, launches=self.launches[:until], launched=self.launched[:until])

    def launches_with_events(self) -> list[Launch]:
        """Launches of titles with at least one event: the candidates of an evaluation."""
        known = set(self.titles)
        return [launch for launch in self.launches if launch.title in known]


class EventColumns(NamedTuple):
    """The columns of an events file, in the order of its rows N."""

    users: list[str]
    items: list[str]
    user_N: NDArray[np.int32]  # rows of `users`
    item_N: NDArray[np.int32]  # rows of `items`
    ts_N: NDArray[np.float64]  # ms
    rating_N: NDArray[np.float64]  # 0 to 5; NaN: none
    action_N: NDArray[np.uint8]  # codes of ACTIONS


KnownTitles = dict[str, tuple[Launch, int | None]]  # item -> its launch, and the launch date (ms) if there is one


def load(
    events: Path,
    titles: Path | None = None,
    text: Sequence[str] = (),
    name: str | None = None,
    rating_max: float = MAX_RATING,
) -> Dataset:
    """A dataset from CSV or Parquet; without titles, every title launches at the start and has no text.

    `text` names further columns of the titles to embed. Ratings are from 0 to `rating_max`. The dataset is named after
    the folder if the file is called `events`, else after the file. Raises DataError.
    """
    table = read_table(events)
    name = name or default_name(events)
    return from_tables(table, read_table(titles) if titles else None, text, name=name, rating_max=rating_max)


def default_name(events: Path) -> str:
    """The name of the folder if the file is called `events`, else of the file."""
    stem = events.name.split(".")[0]
    return events.resolve().parent.name if stem == "events" else stem


def from_tables(
    events: Table,
    titles: Table | None,
    text: Sequence[str] = (),
    *,
    name: str,
    simulated: bool = False,
    rating_max: float = MAX_RATING,
) -> Dataset:
    """A dataset from tables: user, item, ts (Unix seconds), rating, action; item, title and other metadata."""
    return assemble(
        read_events(events, rating_max), read_titles(titles, text) if titles else {}, name=name, simulated=simulated
    )


def read_events(events: Table, rating_max: float = MAX_RATING) -> EventColumns:
    """The columns of the events. Raises DataError for the first problem, unless the table collects its findings."""
    for name in ("user", "item", "ts"):
        events.column(name)
    if events.rows.empty and not (events.findings and events.findings.problems):
        events.fail("", f"{events.file} contains no event.")
    user_N, users = ids(events, "user")
    item_N, items = ids(events, "item")
    events.reject("ts", events.column("ts").isna().to_numpy(), "expected a time in Unix seconds")
    ts_N, rating_N, action_N = times(events, "ts"), ratings(events, "rating", rating_max), actions(events, "action")
    return EventColumns(users, items, user_N, item_N, ts_N, rating_N, action_N)


def assemble(events: EventColumns, known: KnownTitles, *, name: str, simulated: bool = False) -> Dataset:
    """The dataset of valid columns and titles."""
    users, items, user_N = events.users, events.items, events.user_N
    order = np.lexsort((_tie_break(users, user_N, items, events.item_N), events.ts_N))
    ts_N, item_N = events.ts_N[order].astype(np.int64), events.item_N[order]
    launches = sorted(_launches(known, items, item_N, ts_N), key=lambda launch: launch.ts or 0)
    return Dataset(
        name=name,
        simulated=simulated,
        users=users,
        titles=items,
        user=user_N[order],
        title=item_N,
        ts=ts_N,
        rating=events.rating_N[order],
        action=events.action_N[order],
        launches=launches,
        launched=np.array([launch.ts for launch in launches], np.int64),
    )


def _tie_break(
    users: list[str], user_N: NDArray[np.int32], items: list[str], item_N: NDArray[np.int32]
) -> NDArray[np.uint64]:
    pairs = (f"{users[u]}:{items[i]}" for u, i in zip(user_N.tolist(), item_N.tolist(), strict=True))
    digests = b"".join(hashlib.blake2b(pair.encode(), digest_size=8).digest() for pair in pairs)
    return np.frombuffer(digests, ">u8").astype(np.uint64)  # big-endian numbers sort like their bytes


def read_titles(titles: Table, text: Sequence[str]) -> KnownTitles:
    """Launch and launch date of each title; the last row of a repeated item is used.

    Raises DataError for the first problem. A table that collects its findings gives no titles if there is one.
    """
    code_R, items = ids(titles, "item")
    for name in ("title", *text):
        titles.column(name)
    further = {name: texts(titles, name) for name in text if name not in _EMBEDDED}
    columns = (texts(titles, "title"), genres(titles, "genres"), texts(titles, "overview"), *_released(titles))
    if titles.findings is not None and titles.findings.problems:
        return {}
    known, large_R = {}, np.zeros(len(code_R), bool)
    for row, (name, kinds, overview, year, released, date) in enumerate(zip(*columns, strict=True)):
        item, more = items[code_R[row]], {key: column[row] for key, column in further.items() if column[row]}
        launch = Launch(title=item, name=name, genres=kinds, overview=overview, text=more, year=year, released=released)
        known[item], large_R[row] = (launch, date), len(to_json(launch)) > MAX_LAUNCH_BYTES
    titles.reject("item", large_R, f"the title's texts have more than {MAX_LAUNCH_BYTES:,} bytes in a launch")
    repeated_R = np.bincount(code_R, minlength=len(items))[code_R] > 1
    titles.note("item", repeated_R, "the last row of a repeated item is used")
    return known


def _released(titles: Table) -> tuple[list[int | None], list[int | None], list[int | None]]:
    """Year, release date (ms) if the metadata has one, and launch date (ms) of each title."""
    year_R, stamp_R = years(titles, "year"), times(titles, "launched_ts")
    released_R = np.where(np.isnan(stamp_R), dates(titles, "release_date"), stamp_R)
    since_1970_R = np.nan_to_num(year_R - 1970).astype(np.int64).astype("datetime64[Y]")
    new_year_R = since_1970_R.astype("datetime64[ms]").astype(np.int64).astype(np.float64)
    date_R = np.where(np.isnan(released_R), np.where(np.isnan(year_R), np.nan, new_year_R), released_R)
    return _optional_ints(year_R), _optional_ints(released_R), _optional_ints(date_R)


def _optional_ints(value_R: NDArray[np.float64]) -> list[int | None]:
    return [None if np.isnan(value) else int(value) for value in value_R]


def _launches(
    known: KnownTitles,
    items: list[str],
    item_N: NDArray[np.int32],
    ts_N: NDArray[np.int64],
) -> Iterator[Launch]:
    """One launch per title, with its time; `ts_N` is sorted."""
    start, end = int(ts_N[0]) - 1, int(ts_N[-1])
    code_V, at_V = np.unique(item_N, return_index=True)
    latest = {items[code]: ts - 1 for code, ts in zip(code_V.tolist(), ts_N[at_V].tolist(), strict=True)}
    for item in [*items, *(item for item in known if item not in latest)]:
        launch, date = known.get(item, (Launch(title=item), None))
        launched = start if date is None else max(start, date)
        yield msgspec.structs.replace(launch, ts=min(launched, latest.get(item, end)))
