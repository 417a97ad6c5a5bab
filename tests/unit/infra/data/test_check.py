"""A check reports every problem and conversion of the files, and accepts exactly the files that commands read."""

import json
from pathlib import Path
from typing import Any

import pytest

from infra.data.check import Report, check
from infra.data.datasets import load
from infra.data.locate import Files
from infra.data.tables import DataError
from tests.support.tables import write_table

NOW_S = 1_700_000_000.0


def run(events: Path, titles: Path | None = None, **options: Any) -> Report:
    return check(Files(events, titles, "x"), clock=lambda: NOW_S, **options)


def problems(report: Report) -> list[tuple[str, int, int]]:
    return [(one.column, one.rows, one.row) for file in report.files for one in file.problems]


def test_valid_files_are_counted_and_no_problem_is_reported(tmp_path: Path) -> None:
    rows = {"user": [1, 2, 2, 2], "item": ["a", "b", "b", "c"], "ts": [NOW_S, NOW_S - 1, NOW_S - 1, 5], "extra": 0}
    titles = {"item": ["a", "z"], "title": ["A", None], "genres": ["Drama|War", "a, b"], "year": [1999, None]}
    report = run(write_table(tmp_path, "e.csv", rows), write_table(tmp_path, "t.csv", titles))
    assert report.is_valid
    assert list(report.counts.values()) == [4, 2, 3, 4, 1]
    assert (report.first_ms, report.last_ms) == (5000, NOW_S * 1000)
    assert len(report.notes) == 2  # a repeated event, and one before 1980
    events, known = report.files
    assert (events.rows, events.ignored, events.absent) == (4, ["extra"], ["rating", "action"])
    assert [tuple(one) for one in known.columns] == [
        ("item", "id", 2, 0, 0, 0),
        ("title", "text", 1, 1, 0, 0),
        ("genres", "genres", 2, 0, 2, 0),
        ("year", "year", 1, 1, 0, 0),
    ]
    assert json.loads(json.dumps(report.as_json()))["valid"] is True


def test_all_problems_of_both_files_are_reported(tmp_path: Path) -> None:
    events, titles = tmp_path / "e.csv", tmp_path / "t.csv"
    lines = ["user,item,ts,rating", "u,a,1,9", "u,a", ",a,x,3", "u,a,1600000000000,", "u,a,,7"]
    events.write_text("\n".join(lines))
    titles.write_text("item,genres,launched_ts\na,['x'],noon\n,,\n")
    report = run(events, titles, text=("plot",))
    assert not report.is_valid
    assert report.counts == {}
    assert problems(report) == [
        ("", 1, 2),
        ("user", 1, 3),
        ("ts", 1, 5),
        ("ts", 1, 3),
        ("ts", 1, 4),
        ("rating", 2, 1),
        ("item", 1, 2),
        ("title", 0, 0),
        ("plot", 0, 0),
        ("genres", 1, 1),
        ("launched_ts", 1, 1),
    ]
    assert [tuple(one) for one in report.files[0].columns] == [
        ("user", "id", 3, 0, 0, 1),
        ("item", "id", 4, 0, 0, 0),
        ("ts", "time, Unix seconds", 1, 0, 0, 3),
        ("rating", "rating", 1, 1, 0, 2),
    ]


@pytest.mark.parametrize(
    ("events", "titles"),
    [
        ("user,item,ts\nu,a,1,2\n", ""),
        ("user,item,ts\n", ""),
        ("user,item\nu,a\n", ""),
        ("", ""),
        ("user,item,ts,rating\nu,a,1,7\n", ""),
        ("user,item,ts\nu,a,1\n", "item\na\n"),
        ("user,item,ts\nu,a,1\n", "item,title\n,A\n"),
        ("user,item,ts\nu,a,1\n", "item,title\n"),
        ("user,item,ts\nu,a,1\n", "item,title,item\n"),
        ("user,item,ts\nu,a,1\n", "item,title,genres\na,A,[1]\n"),
    ],
)
def test_check_accepts_exactly_what_commands_read(tmp_path: Path, events: str, titles: str) -> None:
    paths = tmp_path / "e.csv", tmp_path / "t.csv"
    for path, text in zip(paths, (events, titles), strict=True):
        path.write_text(text)
    known = paths[1] if titles else None
    try:
        load(paths[0], known)
        is_read = True
    except DataError:
        is_read = False
    assert run(paths[0], known).is_valid == is_read


def test_events_later_than_now_are_refused(tmp_path: Path) -> None:
    rows = {"user": [1, 1, 1], "item": [1, 1, 1], "ts": [NOW_S, NOW_S + 3600, NOW_S + 3601]}
    assert problems(run(write_table(tmp_path, "e.csv", rows))) == [("ts", 1, 3)]


def test_rating_scale_is_that_of_the_option(tmp_path: Path) -> None:
    path = write_table(tmp_path, "e.csv", {"user": [1, 1], "item": [1, 2], "ts": [1, 2], "rating": [10, None]})
    assert not run(path).is_valid
    report = run(path, rating_max=10)
    assert report.is_valid
    assert report.files[0].columns[-1] == ("rating", "rating", 1, 1, 1, 0)


def test_titles_with_other_ids_and_events_without_targets_are_noted(tmp_path: Path) -> None:
    events = {"user": [1], "item": ["a"], "ts": [NOW_S], "action": ["impression"]}
    titles = write_table(tmp_path, "t.csv", {"item": ["b"], "title": ["B"]})
    report = run(write_table(tmp_path, "e.csv", events), titles)
    assert report.is_valid
    assert len(report.notes) == 2
