"""Files become events and launches in the protocol's order; invalid files are refused with file, column and row."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.data.datasets import DataError, load
from streaming.records import Event
from tests.support.tables import write_table

YEAR_2000_MS = 946_684_800_000


def test_events_are_ordered_by_time_and_ties_by_hash(tmp_path: Path) -> None:
    users, items = ["u"] * 6 + ["v"], [1, 2, 3, 4, 5, 6, 7]
    path = write_table(tmp_path, "events.parquet", {"user": users, "item": items, "ts": [9, 9, 9, 9, 9, 9, 8]})
    tied = sorted("123456", key=lambda item: hashlib.blake2b(f"u:{item}".encode(), digest_size=8).digest())
    data = load(path)
    assert [data.event(k).title for k in range(7)] == ["7", *tied]
    assert tied != sorted(tied)  # else this shows nothing
    assert data.event(0) == Event(user="v", title="7", ts=8000)


def test_event_keeps_rating_action_and_milliseconds(tmp_path: Path) -> None:
    rows = {
        "user": ["a", "b"],
        "item": ["x", "x"],
        "ts": [1.25, 2.0],
        "rating": [None, 4.5],
        "action": ["finish", None],
    }
    data = load(write_table(tmp_path, "plays.csv", rows))
    assert data.name == "plays"
    assert data.event(0) == Event(user="a", title="x", ts=1250, action="finish")
    assert data.event(1) == Event(user="b", title="x", ts=2000, rating=4.5)


@pytest.mark.parametrize("item", [[12, 7], ["12", "7"], [12.0, 7.0]])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_ids_of_different_types_are_equal(tmp_path: Path, item: list[Any], kind: str) -> None:
    events = write_table(tmp_path, f"events.{kind}", {"user": [1, 2], "item": item, "ts": [10, 20]})
    titles = write_table(tmp_path, "titles.parquet", {"item": ["12", "7"], "title": ["Twelve", "Seven"]})
    data = load(events, titles)
    assert data.titles == ["12", "7"]
    assert [launch.name for launch in data.launches] == ["Twelve", "Seven"]


def launches_of(folder: Path, **columns: list[Any]) -> dict[str, int]:
    """Launch times in ms of titles whose first events are at 2000, 2010 and 2020; a fourth has none."""
    day = YEAR_2000_MS // 1000
    stamps = [day, day + 10 * 31_557_600, day + 20 * 31_557_600]
    events = write_table(folder, "events.parquet", {"user": ["u"] * 3, "item": ["a", "b", "c"], "ts": stamps})
    titles = write_table(folder, "titles.csv", {"item": list("abcd"), "title": list("ABCD"), **columns})
    return {launch.title: launch.ts or 0 for launch in load(events, titles).launches}


def ms(date: str) -> int:
    return int(np.datetime64(date, "ms").astype(np.int64))


def test_launch_time_is_clamped_to_stream_start_and_first_event(tmp_path: Path) -> None:
    start = YEAR_2000_MS - 1
    undated = launches_of(tmp_path / "0")
    assert undated == dict.fromkeys("abcd", start)
    years = launches_of(tmp_path / "1", year=[1950, 2005, 2030, None])
    first_of_c = YEAR_2000_MS + 20 * 31_557_600_000
    assert years == {"a": start, "b": ms("2005-01-01"), "c": first_of_c - 1, "d": start}
    dates = ["", "2006-07-08", "unknown", "2099-01-01"]
    dated = launches_of(tmp_path / "2", year=[None, 2005, 2008, None], release_date=dates)
    assert dated == {"a": start, "b": ms("2006-07-08"), "c": ms("2008-01-01"), "d": first_of_c}
    stamps = [None, YEAR_2000_MS / 1000 + 1.5, None, None]
    assert launches_of(tmp_path / "3", release_date=dates, launched_ts=stamps)["b"] == YEAR_2000_MS + 1500


def test_launches_are_ordered_by_time_with_their_texts(tmp_path: Path) -> None:
    events = write_table(tmp_path, "events.parquet", {"user": [1, 1], "item": [1, 2], "ts": [10**9, 2 * 10**9]})
    rows = {
        "item": [2, 1],
        "title": ["Late", None],
        "genres": [["Drama", "War"], []],
        "overview": ["A story.", None],
        "year": [2010, None],
        "keywords": ["sea", None],
    }
    data = load(events, write_table(tmp_path, "titles.parquet", rows), text=("keywords", "overview"))
    first, second = data.launches
    assert (first.title, first.name, first.genres, first.text, first.year) == ("1", "", [], {}, None)
    assert (second.title, second.name, second.genres, second.overview) == ("2", "Late", ["Drama", "War"], "A story.")
    assert (second.text, second.year, second.released) == ({"keywords": "sea"}, 2010, None)
    assert data.launched.tolist() == [launch.ts for launch in data.launches]


def test_title_without_metadata_launches_and_title_without_events_is_no_candidate(tmp_path: Path) -> None:
    events = write_table(tmp_path, "events.csv", {"user": [1, 1], "item": ["a", "b"], "ts": [10, 20]})
    data = load(events, write_table(tmp_path, "titles.csv", {"item": ["b", "z"], "title": ["B", "Z"]}))
    assert [launch.title for launch in data.launches] == ["a", "b", "z"]
    assert [launch.title for launch in data.launches_with_events()] == ["a", "b"]


def test_slice_keeps_all_launches_up_to_its_end(tmp_path: Path) -> None:
    day = 86_400
    events = write_table(
        tmp_path, "events.csv", {"user": [1] * 4, "item": list("abcd"), "ts": [day * k for k in (1, 2, 3, 4)]}
    )
    rows = {"item": list("abcd"), "title": list("ABCD"), "launched_ts": [0, 1.5 * day, 2.5 * day, 3.5 * day]}
    data = load(events, write_table(tmp_path, "titles.csv", rows))
    part = data.slice(1, 3)
    assert [part.event(k).title for k in range(len(part))] == ["b", "c"]
    assert [launch.title for launch in part.launches] == ["a", "b", "c"]
    assert len(data.slice(2).launches) == 4
    assert len(data.slice(0, 0).launches) == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"user": [1], "ts": [1]}, "events.csv has no column 'item': it has 'user', 'ts'."),
        ({"user": [1, 2], "item": [1, 2], "ts": [1, None]}, "'ts' .* has no value in row 2"),
        ({"user": [1], "item": [1], "ts": [1], "rating": [9]}, "'rating' .* has '9' in row 1: .*0 to 5"),
        ({"user": [], "item": [], "ts": []}, "events.csv contains no event"),
    ],
)
def test_invalid_events_are_refused(tmp_path: Path, rows: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write_table(tmp_path, "events.csv", rows))


def test_invalid_titles_are_refused(tmp_path: Path) -> None:
    events = write_table(tmp_path, "events.csv", {"user": [1], "item": [1], "ts": [1]})
    with pytest.raises(DataError, match=r"'year' of .*titles\.csv has '0' in row 1"):
        load(events, write_table(tmp_path, "titles.csv", {"item": [1], "title": ["A"], "year": [0]}))
    with pytest.raises(DataError, match=r"titles\.csv has no column 'plot'"):
        load(events, write_table(tmp_path, "titles.csv", {"item": [1], "title": ["A"]}), text=("plot",))


def test_launch_larger_than_the_flow_accepts_is_refused(tmp_path: Path) -> None:
    events = write_table(tmp_path, "events.csv", {"user": [1], "item": [1], "ts": [1]})
    further = {f"text{n}": ["", "界" * 60_000] for n in range(6)}  # 180,000 bytes each
    titles = write_table(tmp_path, "titles.parquet", {"item": [1, 2], "title": ["A", "B"], **further})
    assert len(load(events, titles, text=[*further][:5]).launches) == 2
    with pytest.raises(DataError, match=r"'item' of .* has '2' in row 2: .* more than 1,048,576 bytes"):
        load(events, titles, text=[*further])
