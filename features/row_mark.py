"""A mark that lies with the rows of a view in the online store, and is lost whenever they are.

It is in the row with an empty id, which no user and no title has.
"""

import features.feast_import  # noqa: F401

# isort: split

from feast import FeatureStore, FeatureView

from features.definitions import title_semantics, user_activity
from features.store import redis_key_of, redis_of


def read_mark(store: FeatureStore, view: str, writer: str) -> str | None:
    """What `write_mark` stored; None if the rows have been lost since. Raises redis errors."""
    value: bytes | None = redis_of(store).hget(_key(store, view), writer)
    return None if value is None else value.decode()


def write_mark(store: FeatureStore, view: str, writer: str, mark: str) -> None:
    """Store a mark of one of the writers of the view. Raises redis errors."""
    redis_of(store).hset(_key(store, view), mapping={writer: mark, f"_ts:{view}": b""})  # Feast deletes keys with `_ts`


def _key(store: FeatureStore, view: str) -> bytes:
    views: dict[str, FeatureView] = {one.name: one for one in (user_activity, title_semantics)}
    return redis_key_of(store, views[view], "")
