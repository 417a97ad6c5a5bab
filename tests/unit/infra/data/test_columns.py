"""Columns are read strictly: an invalid value is refused with file, column and row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest

from infra.data import columns
from infra.data.tables import DataError, Findings, Table, read_table
from model.actions import ACTIONS
from streaming.records import MAX_GENRE_CHARS, MAX_GENRES, MAX_ID_BYTES
from tests.support.tables import write_table

READERS: Final[dict[str, Callable[[Table, str], Any]]] = {
    "user": columns.ids,
    "item": columns.ids,
    "ts": columns.times,
    "rating": columns.ratings,
    "action": columns.actions,
    "year": columns.years,
    "title": columns.texts,
    "genres": columns.genres,
    "release_date": columns.dates,
}


def read(folder: Path, column: str, values: list[Any], name: str = "events.csv") -> Any:
    """The column after a round trip through a file."""
    return READERS[column](read_table(write_table(folder, name, {column: values, "other": [1] * len(values)})), column)


@pytest.mark.parametrize("item", [[12, 7, 12], ["12", "7", "12"], [12.0, 7.0, 12.0]])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_equal_ids_of_different_types_have_the_same_name(tmp_path: Path, item: list[Any], kind: str) -> None:
    code_N, names = read(tmp_path, "item", item, f"events.{kind}")
    assert (code_N.tolist(), names) == ([0, 1, 0], ["12", "7"])


def test_csv_ids_keep_leading_zeros_and_words(tmp_path: Path) -> None:
    assert read(tmp_path, "user", ["007", "NA"])[1] == ["007", "NA"]
    assert read(tmp_path, "item", ["null", "1.50"])[1] == ["null", "1.50"]


def test_values_are_converted_to_the_units_of_the_project(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, "ts", [1.25, None, 1_600_000_000]), [1250, np.nan, 1.6e12])
    np.testing.assert_array_equal(read(tmp_path, "rating", [0, None, 4.5]), [0, np.nan, 4.5])
    np.testing.assert_array_equal(read(tmp_path, "year", [1999, None, "2001.0"]), [1999, np.nan, 2001])
    assert read(tmp_path, "action", ["finish", None]).tolist() == [ACTIONS["finish"].code, ACTIONS["play"].code]


def test_missing_optional_column_is_read_as_empty(tmp_path: Path) -> None:
    table = read_table(write_table(tmp_path, "events.csv", {"item": [1, 2]}))
    for reader in (columns.numbers, columns.dates):
        assert np.isnan(reader(table, "absent")).tolist() == [True, True]
    assert columns.actions(table, "absent").tolist() == [ACTIONS["play"].code] * 2
    assert columns.texts(table, "absent") == ["", ""]
    assert columns.genres(table, "absent") == [[], []]


def test_unreadable_or_ancient_date_is_empty(tmp_path: Path) -> None:
    dates = ["2006-07-08", "unknown", "1850-01-01", None]
    date_N = columns.dates(read_table(write_table(tmp_path, "titles.csv", {"date": dates})), "date")
    np.testing.assert_array_equal(date_N, [1_152_316_800_000, np.nan, np.nan, np.nan])


@pytest.mark.parametrize("genres", [["Drama| War", "(no genres listed)"], [["Drama", "War"], []]])
def test_genres_are_split_and_empty_genres_dropped(tmp_path: Path, genres: list[Any]) -> None:
    table = read_table(write_table(tmp_path, "titles.parquet", {"genres": genres}))
    assert columns.genres(table, "genres") == [["Drama", "War"], []]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user", [1, None], "'user' of .* has no value in row 2"),
        ("user", ["x" * 300], "'user' .* 1 to 256 bytes"),
        ("ts", ["noon"], "'ts' of .*events.csv has 'noon' in row 1"),
        ("ts", [1_500_000_000_000], "has '1500000000000' .*milliseconds: divide by 1,000"),
        ("ts", [1_500_000_000_000_000], "microseconds: divide by 1,000,000"),
        ("ts", [1_500_000_000_000_000_000], "nanoseconds: divide by 1,000,000,000"),
        ("ts", ["inf"], "has 'inf' in row 1"),
        ("rating", [4, 9], "'rating' .* has '9' in row 2: .*0 to 5; .*--rating-max 10"),
        ("rating", [4, 90], "'rating' .* has '90' in row 2: .*0 to 5; .*--rating-max 100"),
        ("action", ["ate"], "has 'ate' in row 1: expected one of impression,"),
        ("year", [0], "'year' of .*events.csv has '0' in row 1"),
        ("year", [1999.5], "has '1999.5' in row 1"),
        ("year", ["MCMXC"], "has 'MCMXC' in row 1"),
    ],
)
def test_invalid_value_is_refused_with_file_column_and_row(
    tmp_path: Path, column: str, values: list[Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, column, values)


def test_missing_required_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"events.csv has no column 'item': it has 'user', 'ts'\."):
        columns.ids(read_table(write_table(tmp_path, "events.csv", {"user": [1], "ts": [1]})), "item")


def test_datetime_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a plain number"):
        read(tmp_path, "ts", list(pd.to_datetime(["2020-01-01"])), "events.parquet")


@pytest.mark.parametrize("column", READERS)
@pytest.mark.parametrize("cell", [{"a": 1}, True, pd.Timedelta(1, "s"), [1.5], [["x"]], b"\xff", [{"b": 1}]], ids=str)
def test_cell_that_is_no_text_number_or_list_of_texts_is_refused_with_its_row(
    tmp_path: Path, column: str, cell: Any
) -> None:
    with pytest.raises(DataError, match=f"Column '{column}' of .*events.parquet has .* in row 2: expected "):
        read(tmp_path, column, [None, cell], "events.parquet")


def test_bytes_are_text_in_utf_8(tmp_path: Path) -> None:
    assert read(tmp_path, "user", [b"u1", "ü".encode()], "events.parquet")[1] == ["u1", "ü"]
    assert read(tmp_path, "ts", [b"1.5"], "events.parquet").tolist() == [1500]
    assert read(tmp_path, "action", [b"like"], "events.parquet").tolist() == [ACTIONS["like"].code]
    assert read(tmp_path, "title", [b"Good", None], "events.parquet") == ["Good", ""]
    assert read(tmp_path, "genres", [b"Drama|War"], "events.parquet") == [["Drama", "War"]]


def test_number_in_a_text_column_becomes_its_digits(tmp_path: Path) -> None:
    assert read(tmp_path, "title", [300.0, None, 1.5], "events.parquet") == ["300", "", "1.5"]
    assert read(tmp_path, "title", ["300.0"], "events.csv") == ["300.0"]


def test_large_float_is_no_id(tmp_path: Path) -> None:
    assert read(tmp_path, "user", [2.0**53], "events.parquet")[1] == [str(2**53)]
    with pytest.raises(DataError, match=r"in row 2: .* lost digits"):
        read(tmp_path, "user", [1.0, 2.0**54], "events.parquet")
    with pytest.raises(DataError, match=r"in row 1: .* lost digits"):
        read(tmp_path, "user", np.array([2**25], np.float32), "events.parquet")  # type: ignore[arg-type]


def test_number_that_a_spreadsheet_has_rounded_is_no_id(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"in row 2: .* a spreadsheet has rounded"):
        read(tmp_path, "user", ["12345", "1.23457E+17"])
    assert read(tmp_path, "user", ["1e5", "12E+3", "1.5"])[1] == ["1e5", "12E+3", "1.5"]


def test_times_in_32_bit_floats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="in row 1: expected Unix seconds in 64 bits"):
        read(tmp_path, "ts", np.array([1_600_000_000], np.float32), "events.parquet")  # type: ignore[arg-type]


def test_limit_of_an_id_is_in_bytes_as_in_the_flows(tmp_path: Path) -> None:
    assert read(tmp_path, "user", ["é" * (MAX_ID_BYTES // 2)])[1] == ["é" * (MAX_ID_BYTES // 2)]
    with pytest.raises(DataError, match=f"1 to {MAX_ID_BYTES} bytes"):
        read(tmp_path, "user", ["é" * (MAX_ID_BYTES // 2 + 1)])


def test_nulls_in_a_list_of_genres_are_left_out(tmp_path: Path) -> None:
    assert read(tmp_path, "genres", [["Drama", None, "War"], [None], None], "t.parquet") == [["Drama", "War"], [], []]


def test_json_genres_are_lists(tmp_path: Path) -> None:
    assert read(tmp_path, "genres", ['["Drama", "War"]', "[]", ' ["A|B"]'], "t.csv") == [["Drama", "War"], [], ["A|B"]]


@pytest.mark.parametrize("genres", ["['a', 'b']", '{"id": 1}', '[{"id": 1}]', "[28, 12]", '["a"', "[" * 5000])
def test_other_text_in_brackets_is_refused_with_a_hint(tmp_path: Path, genres: str) -> None:
    with pytest.raises(DataError, match=r"in row 1: expected genres separated by '\|'"):
        read(tmp_path, "genres", [genres], "t.csv")


@pytest.mark.parametrize("genres", ["g" * (MAX_GENRE_CHARS + 1), "|".join(map(str, range(MAX_GENRES + 1)))])
def test_genres_beyond_the_limits_of_the_flow_are_refused(tmp_path: Path, genres: str) -> None:
    with pytest.raises(DataError, match=f"row 2: expected at most {MAX_GENRES} genres of {MAX_GENRE_CHARS} characters"):
        read(tmp_path, "genres", ["x", genres], "t.csv")


def test_ratings_on_another_scale_are_converted(tmp_path: Path) -> None:
    table = read_table(write_table(tmp_path, "events.csv", {"rating": [10, 7, 0, None]}))
    np.testing.assert_array_equal(columns.ratings(table, "rating", 10), [5, 3.5, 0, np.nan])
    with pytest.raises(DataError, match=r"has '10.0' in row 1: expected a rating from 0 to 9"):
        columns.ratings(table, "rating", 9)
    for wrong in (0, float("nan"), float("inf")):
        with pytest.raises(DataError, match="highest rating"):
            columns.ratings(table, "rating", wrong)


@pytest.mark.parametrize("date", ["10:30", "now", "May"])
def test_date_without_a_year_is_empty(tmp_path: Path, date: str) -> None:
    assert np.isnan(read(tmp_path, "release_date", [date])).tolist() == [True]


def test_numeric_date_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'release_date' .* in row 1: expected a date as text"):
        read(tmp_path, "release_date", [1_152_316_800], "events.parquet")


def test_findings_have_all_problems_with_their_first_row(tmp_path: Path) -> None:
    rows = {"user": ["a", None, None], "ts": ["1", "x", "1600000000000"], "rating": ["9", "-1", ""]}
    table = read_table(write_table(tmp_path, "events.csv", rows), Findings())
    for name in rows:
        READERS[name](table, name)
    columns.ids(table, "item")
    assert table.findings is not None
    found = [(problem.column, problem.rows, problem.row) for problem in table.findings.problems]
    assert found == [("user", 2, 2), ("ts", 1, 2), ("ts", 1, 3), ("rating", 2, 1), ("item", 0, 0)]


@pytest.mark.parametrize("date", ["01/02/2024", "1.2.2024", "02-03-1999 10:00", "1 12 2024"])
def test_date_whose_day_and_month_cannot_be_told_apart_is_refused(tmp_path: Path, date: str) -> None:
    with pytest.raises(DataError, match=r"'release_date' .* in row 2: .* write the date as year-month-day"):
        read(tmp_path, "release_date", ["2024-02-01", date])


@pytest.mark.parametrize("date", ["31/12/1999", "12/31/1999", "31-Dec-1999", "1999-12-31", "1999.12.31"])
def test_date_that_has_one_meaning_is_read(tmp_path: Path, date: str) -> None:
    assert read(tmp_path, "release_date", [date]).tolist() == [946_598_400_000]


@pytest.mark.parametrize("time", ["01/02/2024", "2024-02-01T10:00:00Z", "1,704,067,200"])
def test_time_that_is_no_number_is_refused_with_the_format(tmp_path: Path, time: str) -> None:
    with pytest.raises(DataError, match=r"'ts' .* in row 1: .* Unix seconds, such as 1704067200"):
        read(tmp_path, "ts", [time])


def test_id_that_other_programs_write_for_no_value_is_noted(tmp_path: Path) -> None:
    path = write_table(tmp_path, "events.csv", {"user": ["NaN", "u", "null"], "other": [1, 2, 3]})
    table = read_table(path, Findings())
    assert columns.ids(table, "user")[1] == ["NaN", "u", "null"]
    assert table.findings is not None
    assert [(found.rows, found.row) for found in table.findings.conversions] == [(2, 1)]
