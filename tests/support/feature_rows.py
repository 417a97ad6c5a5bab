"""Rows of the feature store."""

from datetime import UTC, datetime, timedelta
from typing import Any

NOON = datetime(2016, 5, 1, 12, tzinfo=UTC)


def user_row(user: str, after: float, count: int, titles: list[str], created: float = 0) -> dict[str, Any]:
    """A user's features after `count` events, the newest `after` seconds past noon, timed like the flow does."""
    newest = NOON + timedelta(seconds=after)
    ms = int(newest.timestamp() * 1000)
    return {
        "user_id": user,
        "event_timestamp": newest + timedelta(microseconds=count),
        "created": NOON + timedelta(seconds=created),
        "event_count": count,
        "last_title": titles[0],
        "last_action": "play",
        "last_event_ms": ms,
        "recent_titles": titles,
        "recent_actions": [3] * len(titles),
        "recent_ms": [ms] * len(titles),
        "title": titles[0],
        "action": "play",
        "event_ms": ms,
        "partition": 0,
        "offset": count,
        "oldest_created": NOON,
    }


def title_row(title: str, stamp: datetime = NOON, **fields: Any) -> dict[str, Any]:
    fixed = {"title_id": title, "event_timestamp": stamp, "created": stamp}
    return {
        **fixed,
        "name": "Amélie 🎬",
        "genres": ["Comedy", "Romance"],
        "year": 2001,
        "withdrawn": False,
        "semantic": [0.25, -0.5],
        **fields,
    }
