"""Rows of an offline log, written as a flow writes them, and a run of compaction."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from streaming.stores.compaction import CompactionResult, compact
from streaming.stores.parquet_log import ParquetSink

TODAY = date(2026, 5, 10)
TIME = pa.timestamp("us", tz="UTC")
ROW = pa.schema(
    [
        ("user_id", pa.string()),
        ("event_timestamp", TIME),
        ("created", TIME),
        ("recent_titles", pa.list_(pa.string())),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
    ]
)
REQUEST = pa.schema([("user_id", pa.string()), ("appended", TIME)])


def moment(day: int, second: int = 0) -> datetime:
    """Noon, `day` days before today, plus some seconds."""
    return datetime(2026, 5, 10, 12, tzinfo=UTC) - timedelta(days=day) + timedelta(seconds=second)


def row(user: str, offset: int, day: int, partition: int = 0) -> dict[str, Any]:
    at = moment(day, offset)
    where = {"partition": partition, "offset": offset}
    return {"user_id": user, "event_timestamp": at, "created": at, "recent_titles": [f"t{offset}"], **where}


class Epochs:
    """A sink that writes each list of rows as one epoch."""

    def __init__(self, folder: Path, name: str = "user_activity", schema: pa.Schema = ROW) -> None:
        self.sink = ParquetSink(folder / name, 1, schema)
        self.state: tuple[Any, ...] | None = None

    def write(self, *epochs: list[dict[str, Any]], close: bool = True) -> "Epochs":
        part = self.sink.build_part("offline", "p000", self.state)
        for rows in epochs:
            part.write_batch([rows])
            self.state = part.snapshot()
        if close:
            part.close()
        return self


def stream(days: Iterable[int] = (3, 3, 3, 2, 2, 1, 0), users: int = 5) -> list[list[dict[str, Any]]]:
    """One epoch of 7 rows for each entry of `days`, which counts days before today."""
    return [[row(f"u{(7 * n + i) % users}", 7 * n + i, day) for i in range(7)] for n, day in enumerate(days)]


def run(folder: Path, today: date = TODAY, keep: int = 0, redelivery_days: int = 15) -> dict[str, CompactionResult]:
    return {
        done.name: done for done in compact(folder, today, {"user_activity": keep}, "user_erasures", redelivery_days)
    }
