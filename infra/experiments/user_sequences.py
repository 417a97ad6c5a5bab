"""The sequence of titles of each user, without times: the input of a leave-one-out evaluation.

Published results depend on the order. In ML-1M, a quarter of the last titles share their second with another title of
the user, so another tie-breaking rule gives another test set. Rows of one second therefore keep their order in the file
(a stable sort). A file may also give the order itself in a column `pos`: the position of the row among its user's rows.
Context rows, such as impressions, are left out.

L titles of a user
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.text_encoders import launch_text
from infra.data.columns import actions, ids, numbers, ratings, times
from infra.data.datasets import Dataset, read_titles
from infra.data.tables import DataError, read_table
from model.actions import TARGET_WEIGHTS
from streaming.records import MAX_RATING, Launch

POSITION_COLUMN: Final = "pos"


@dataclass(frozen=True, eq=False)
class UserSequences:
    """All users' sequences of one dataset. Its length is the number of events."""

    name: str
    simulated: bool
    titles: list[str]
    texts: list[str]  # of the titles, in the same order; "" if a title has no text
    sequences: dict[str, NDArray[np.int64]]  # user -> title_L: indices into `titles`, oldest first, each title once

    def __len__(self) -> int:
        return sum(map(len, self.sequences.values()))


def load(
    events: Path,
    titles: Path | None = None,
    text: Sequence[str] = (),
    limit: int | None = None,
    rating_max: float = MAX_RATING,
) -> UserSequences:
    """Read the first `limit` interactions from CSV or Parquet with columns user, item, and `pos` or ts (unix seconds).
    If a user returns to a title, only the first event counts. `text` names further columns of the titles to embed.
    Ratings are from 0 to `rating_max`. Raises DataError."""
    table = read_table(events)
    interaction_N = _is_interaction(actions(table, "action"), ratings(table, "rating", rating_max))
    table = table._replace(rows=table.rows[interaction_N][:limit])
    if table.rows.empty:
        raise DataError(f"{table.file} holds no interaction: every event is context only, such as an impression.")
    user_N, users = ids(table, "user")
    title_N, items = ids(table, "item")
    key = POSITION_COLUMN if POSITION_COLUMN in table else "ts"
    table.reject(key, table.column(key).isna().to_numpy(), "every row needs a position or a time")
    at_N = numbers(table, key) if key == POSITION_COLUMN else times(table, key)
    known = read_titles(read_table(titles), text) if titles else {}
    texts = _texts([known[item][0] if item in known else None for item in items])
    return UserSequences(events.name.split(".")[0], False, items, texts, _by_user(users, user_N, title_N, at_N))


def from_dataset(data: Dataset) -> UserSequences:
    """The sequences of a dataset, with its tie-breaking. Titles without an interaction are left out."""
    known = {launch.title: launch for launch in data.launches}
    interaction_N = _is_interaction(data.action, data.rating)
    code_V, title_N = np.unique(data.title[interaction_N], return_inverse=True)
    titles = [data.titles[code] for code in code_V.tolist()]
    texts = _texts([known.get(title) for title in titles])
    return UserSequences(
        data.name,
        data.simulated,
        titles,
        texts,
        _by_user(data.users, data.user[interaction_N], title_N, data.ts[interaction_N]),
    )


def _is_interaction(action_N: NDArray[np.uint8], rating_N: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows are interactions: every rating is one, whatever the row's action."""
    interaction_N: NDArray[np.bool_] = (np.array(TARGET_WEIGHTS)[action_N] > 0) | ~np.isnan(rating_N)
    return interaction_N


def _texts(launches: Sequence[Launch | None]) -> list[str]:
    return [
        "" if launch is None else launch_text(launch.name, launch.genres, launch.overview, launch.text)
        for launch in launches
    ]


def _by_user(
    users: list[str], user_N: NDArray[np.int32], title_N: NDArray[Any], at_N: NDArray[Any]
) -> dict[str, NDArray[np.int64]]:
    by_user = np.lexsort((at_N, user_N))  # stable: rows of one time keep their order in the file
    ends_U = np.flatnonzero(np.diff(user_N[by_user], append=-1)) + 1
    parts = np.split(title_N[by_user].astype(np.int64), ends_U[:-1])
    return {
        users[user_N[by_user[end - 1]]]: _first_occurrences(part)
        for part, end in zip(parts, ends_U.tolist(), strict=True)
    }


def _first_occurrences(title_L: NDArray[Any]) -> NDArray[Any]:
    _, first = np.unique(title_L, return_index=True)
    distinct_L: NDArray[Any] = title_L[np.sort(first)]
    return distinct_L
