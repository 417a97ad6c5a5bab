"""Users' titles in the order they took them, without a clock: what a leave-one-out evaluation is made of.

Order is what the published numbers hang on: of ML-1M a quarter of the last titles share their second with another, and
sorting them by anything else makes another test set. So rows keep the order of the file within a second (a stable
sort), and a file may give the order itself, as a column `pos`, the row's place among its user's. Rows that are context
only, such as impressions, are no titles taken.

L titles of a user
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.text_encoders import launch_text
from infra.data.datasets import DataSet, described
from infra.data.tables import DataError, actions, ids, numbers, ratings, read_table, times
from model.actions import WEIGHTS
from streaming.records import Launch

PLACE: Final = "pos"


@dataclass(frozen=True, eq=False)
class Orders:
    """order_L of each user: places in `titles`, int64, oldest first, each title once. `texts` of the titles, in their
    order, empty where nothing is known."""

    name: str
    simulated: bool
    titles: list[str]
    texts: list[str]
    users: dict[str, NDArray[np.int64]]

    def __len__(self) -> int:
        return sum(map(len, self.users.values()))


def load(events: Path, titles: Path | None = None, text: Sequence[str] = (), limit: int | None = None) -> Orders:
    """From CSV or Parquet, the first `limit` rows: user, item, and `pos` or ts (unix seconds); of a title taken again
    the first time counts. `text` names further columns of the titles to embed. Raises DataError."""
    table = read_table(events)
    table = table._replace(rows=table.rows[_taken(actions(table, "action"), ratings(table, "rating"))][:limit])
    if table.rows.empty:
        raise DataError(f"{table.file} holds no event in which a title is taken.")
    user_N, users = ids(table, "user")
    item_N, items = ids(table, "item")
    key = PLACE if PLACE in table else "ts"
    table.refuse(key, table.column(key).isna().to_numpy(), "a place or a time is wanted in each row")
    at_N = numbers(table, key) if key == PLACE else times(table, key)
    known = described(read_table(titles), text) if titles else {}
    texts = _texts([known[item][0] if item in known else None for item in items])
    return Orders(events.name.split(".")[0], False, items, texts, _by_user(users, user_N, item_N, at_N))


def of(data: DataSet) -> Orders:
    """The orders in a stream, ties as it breaks them; titles that nobody took are left out."""
    known = {launch.title: launch for launch in data.launches}
    taken_N = _taken(data.action, data.rating)
    code_V, item_N = np.unique(data.title[taken_N], return_inverse=True)
    titles = [data.titles[code] for code in code_V.tolist()]
    texts = _texts([known.get(title) for title in titles])
    return Orders(
        data.name, data.simulated, titles, texts, _by_user(data.users, data.user[taken_N], item_N, data.ts[taken_N])
    )


def _taken(action_N: NDArray[np.uint8], rating_N: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A rating overrules the action, and whoever rates a title took it."""
    taken_N: NDArray[np.bool_] = (np.array(WEIGHTS)[action_N] > 0) | ~np.isnan(rating_N)
    return taken_N


def _texts(launches: Sequence[Launch | None]) -> list[str]:
    return ["" if one is None else launch_text(one.name, one.genres, one.overview, one.text) for one in launches]


def _by_user(
    users: list[str], user_N: NDArray[np.int32], item_N: NDArray[Any], at_N: NDArray[Any]
) -> dict[str, NDArray[np.int64]]:
    by_user = np.lexsort((at_N, user_N))  # stable: rows of one moment stay as they lie in the file
    ends_U = np.flatnonzero(np.diff(user_N[by_user], append=-1)) + 1
    parts = np.split(item_N[by_user].astype(np.int64), ends_U[:-1])
    return {users[user_N[by_user[end - 1]]]: _once(part) for part, end in zip(parts, ends_U.tolist(), strict=True)}


def _once(order_L: NDArray[Any]) -> NDArray[Any]:
    _, first = np.unique(order_L, return_index=True)
    once: NDArray[Any] = order_L[np.sort(first)]
    return once
