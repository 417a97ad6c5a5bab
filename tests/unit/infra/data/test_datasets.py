"""Files become events and launches in the protocol's order; what is wrong with a file is said in one sentence."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from infra.data.datasets import DataError, DataSet, load
from infra.data.locate import find
from streaming.records import Event

YEAR_2000_MS = 946_684_800_000


def write(folder: Path, name: str, rows: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path, frame = folder / name, pd.DataFrame(dict(rows))
    frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)
    return path


def test_events_come_by_time_and_ties_by_the_hash_of_user_and_item(tmp_path: Path) -> None:
    users, items = ["u"] * 6 + ["v"], [1, 2, 3, 4, 5, 6, 7]
    path = write(tmp_path, "events.parquet", {"user": users, "item": items, "ts": [9, 9, 9, 9, 9, 9, 8]})
    tied = sorted("123456", key=lambda item: hashlib.blake2b(f"u:{item}".encode(), digest_size=8).digest())
    data = load(path)
    assert [data.event(k).title for k in range(7)] == ["7", *tied]
    assert tied != sorted(tied)  # else this shows nothing
    assert data.event(0) == Event(user="v", title="7", ts=8000)


def test_an_event_keeps_its_rating_its_action_and_its_milliseconds(tmp_path: Path) -> None:
    rows = {
        "user": ["a", "b"],
        "item": ["x", "x"],
        "ts": [1.25, 2.0],
        "rating": [None, 4.5],
        "action": ["finish", None],
    }
    data = load(write(tmp_path, "plays.csv", rows))
    assert data.name == "plays"
    assert data.event(0) == Event(user="a", title="x", ts=1250, action="finish")
    assert data.event(1) == Event(user="b", title="x", ts=2000, rating=4.5)


@pytest.mark.parametrize("item", [[12, 7], ["12", "7"], [12.0, 7.0]])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_id_is_the_same_whatever_its_type(tmp_path: Path, item: list[Any], kind: str) -> None:
    events = write(tmp_path, f"events.{kind}", {"user": [1, 2], "item": item, "ts": [10, 20]})
    titles = write(tmp_path, "titles.parquet", {"item": ["12", "7"], "title": ["Twelve", "Seven"]})
    data = load(events, titles)
    assert data.titles == ["12", "7"]
    assert [launch.name for launch in data.launches] == ["Twelve", "Seven"]


def test_ids_of_a_csv_keep_their_zeros_and_their_words(tmp_path: Path) -> None:
    rows = {"user": ["007", "NA"], "item": ["null", "1.50"], "ts": [1, 2]}
    data = load(write(tmp_path, "events.csv", rows))
    assert (data.users, data.titles) == (["007", "NA"], ["null", "1.50"])


def launches_of(folder: Path, **columns: list[Any]) -> dict[str, int]:
    """Launch times in ms of titles whose first events are at 2000, 2010 and 2020; a fourth has none."""
    day = YEAR_2000_MS // 1000
    stamps = [day, day + 10 * 31_557_600, day + 20 * 31_557_600]
    events = write(folder, "events.parquet", {"user": ["u"] * 3, "item": ["a", "b", "c"], "ts": stamps})
    titles = write(folder, "titles.csv", {"item": list("abcd"), "title": list("ABCD"), **columns})
    return {launch.title: launch.ts or 0 for launch in load(events, titles).launches}


def ms(date: str) -> int:
    return int(np.datetime64(date, "ms").astype(np.int64))


def test_a_title_launches_at_its_date_but_before_its_first_event_and_not_before_the_stream(tmp_path: Path) -> None:
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


def test_launches_come_by_time_with_their_texts(tmp_path: Path) -> None:
    events = write(tmp_path, "events.parquet", {"user": [1, 1], "item": [1, 2], "ts": [10**9, 2 * 10**9]})
    rows = {
        "item": [2, 1],
        "title": ["Late", None],
        "genres": [["Drama", "War"], []],
        "overview": ["A story.", None],
        "year": [2010, None],
        "keywords": ["sea", None],
    }
    data = load(events, write(tmp_path, "titles.parquet", rows), text=("keywords", "overview"))
    first, second = data.launches
    assert (first.title, first.name, first.genres, first.text, first.year) == ("1", "", [], {}, None)
    assert (second.title, second.name, second.genres, second.overview) == ("2", "Late", ["Drama", "War"], "A story.")
    assert (second.text, second.year, second.released) == ({"keywords": "sea"}, 2010, None)
    assert data.launched.tolist() == [launch.ts for launch in data.launches]


def test_genres_may_be_text_and_no_genre_is_none(tmp_path: Path) -> None:
    events = write(tmp_path, "events.csv", {"user": [1, 1], "item": [1, 2], "ts": [10, 20]})
    genres = ["Drama| War", "(no genres listed)"]
    data = load(events, write(tmp_path, "titles.csv", {"item": [1, 2], "title": ["A", "B"], "genres": genres}))
    assert [launch.genres for launch in data.launches] == [["Drama", "War"], []]


def test_a_title_without_a_row_launches_without_text_and_one_without_events_is_no_candidate(tmp_path: Path) -> None:
    events = write(tmp_path, "events.csv", {"user": [1, 1], "item": ["a", "b"], "ts": [10, 20]})
    data = load(events, write(tmp_path, "titles.csv", {"item": ["b", "z"], "title": ["B", "Z"]}))
    assert [launch.title for launch in data.launches] == ["a", "b", "z"]
    assert [launch.title for launch in data.launches_with_events()] == ["a", "b"]


def test_a_slice_has_its_events_and_every_launch_up_to_its_end(tmp_path: Path) -> None:
    day = 86_400
    events = write(
        tmp_path, "events.csv", {"user": [1] * 4, "item": list("abcd"), "ts": [day * k for k in (1, 2, 3, 4)]}
    )
    rows = {"item": list("abcd"), "title": list("ABCD"), "launched_ts": [0, 1.5 * day, 2.5 * day, 3.5 * day]}
    data = load(events, write(tmp_path, "titles.csv", rows))
    part = data.slice(1, 3)
    assert [part.event(k).title for k in range(len(part))] == ["b", "c"]
    assert [launch.title for launch in part.launches] == ["a", "b", "c"]
    assert len(data.slice(2).launches) == 4
    assert len(data.slice(0, 0).launches) == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"user": [1], "ts": [1]}, "events.csv has no column 'item': it has user, ts."),
        ({"user": [1, None], "item": [1, 2], "ts": [1, 2]}, "'user' of .* holds nothing in row 2: an id is missing."),
        ({"user": ["x" * 300], "item": [1], "ts": [1]}, "'user' .*: an id has 1 to 256 characters."),
        ({"user": [1], "item": [1], "ts": ["noon"]}, "'ts' of .*events.csv holds 'noon' in row 1: a number is wanted."),
        ({"user": [1, 2], "item": [1, 2], "ts": [1, None]}, "'ts' .* holds nothing in row 2: a time in unix seconds"),
        (
            {"user": [1], "item": [1], "ts": [1_500_000_000_000]},
            r"holds '1500000000000' .*\(divide milliseconds by 1000\)",
        ),
        ({"user": [1], "item": [1], "ts": ["inf"]}, "holds 'inf' in row 1: a number is wanted."),
        (
            {"user": [1], "item": [1], "ts": [1], "rating": [9]},
            "'rating' .* holds '9' in row 1: a rating is from 0 to 5",
        ),
        (
            {"user": [1], "item": [1], "ts": [1], "action": ["ate"]},
            "holds 'ate' in row 1: an action is one of impression,",
        ),
        ({"user": [], "item": [], "ts": []}, "events.csv holds no event."),
    ],
)
def test_a_bad_file_is_refused_with_file_column_and_row(
    tmp_path: Path, rows: dict[str, list[Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load(write(tmp_path, "events.csv", rows))


def test_a_time_column_that_is_no_number_is_refused(tmp_path: Path) -> None:
    stamps = list(pd.to_datetime(["2020-01-01"]))
    with pytest.raises(DataError, match="a plain number is wanted, of seconds for a time"):
        load(write(tmp_path, "events.parquet", {"user": [1], "item": [1], "ts": stamps}))


@pytest.mark.parametrize("year", [0, 1999.5, "MCMXC"])
def test_a_bad_year_is_refused(tmp_path: Path, year: Any) -> None:
    events = write(tmp_path, "events.csv", {"user": [1], "item": [1], "ts": [1]})
    with pytest.raises(DataError, match=f"'year' of .*titles.csv holds '{year}' in row 1"):
        load(events, write(tmp_path, "titles.csv", {"item": [1], "title": ["A"], "year": [year]}))


def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "events.txt").touch()
    for name, message in {
        "absent.csv": "absent.csv cannot be read: .*No such file",
        "broken.parquet": "broken.parquet cannot be read",
        "empty.csv": "empty.csv cannot be read",
        "events.txt": "neither CSV nor Parquet",
    }.items():
        with pytest.raises(DataError, match=message):
            load(tmp_path / name)


def place(folder: Path, user: str) -> Path:
    write(folder, "events.csv", {"user": [user], "item": [1], "ts": [1]})
    write(folder, "titles.csv", {"item": [1], "title": ["A"]})
    return folder


def test_data_is_looked_for_in_the_documented_order(tmp_path: Path) -> None:
    data_dir = tmp_path / "state"

    def found(**given: Any) -> DataSet:
        return find(data_dir=data_dir, **given)

    assert found().simulated
    place(data_dir / "data" / "ml-100k", "fetched")
    assert found().users == ["fetched"]
    assert found().name == "ml-100k"
    place(data_dir / "data" / "ml-latest-small", "better")
    assert found().users == ["better"]
    named = place(tmp_path / "named", "named")
    assert found(folder=named).users == ["named"]
    own = place(tmp_path / "own", "own")
    assert found(folder=named, events=own / "events.csv", titles=own / "titles.csv").users == ["own"]
    with pytest.raises(DataError, match="give --events too"):
        found(titles=own / "titles.csv")
    with pytest.raises(DataError, match="lacks events or titles"):
        found(folder=tmp_path)
