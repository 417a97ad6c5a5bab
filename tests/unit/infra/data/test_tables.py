"""Columns are read strictly: an invalid value is refused with file, column and row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest

from infra.data import tables
from infra.data.tables import DataError, Table, read_table
from model.actions import ACTIONS
from tests.support.tables import write_table

READERS: Final[dict[str, Callable[[Table, str], Any]]] = {
    "user": tables.ids,
    "item": tables.ids,
    "ts": tables.times,
    "rating": tables.ratings,
    "action": tables.actions,
    "year": tables.years,
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
    for reader in (tables.numbers, tables.dates):
        assert np.isnan(reader(table, "absent")).tolist() == [True, True]
    assert tables.actions(table, "absent").tolist() == [ACTIONS["play"].code] * 2
    assert tables.texts(table, "absent") == ["", ""]
    assert tables.genres(table, "absent") == [[], []]


def test_unreadable_or_ancient_date_is_empty(tmp_path: Path) -> None:
    dates = ["2006-07-08", "unknown", "1850-01-01", None]
    date_N = tables.dates(read_table(write_table(tmp_path, "titles.csv", {"date": dates})), "date")
    np.testing.assert_array_equal(date_N, [1_152_316_800_000, np.nan, np.nan, np.nan])


@pytest.mark.parametrize("genres", [["Drama| War", "(no genres listed)"], [["Drama", "War"], []]])
def test_genres_are_split_and_empty_genres_dropped(tmp_path: Path, genres: list[Any]) -> None:
    table = read_table(write_table(tmp_path, "titles.parquet", {"genres": genres}))
    assert tables.genres(table, "genres") == [["Drama", "War"], []]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user", [1, None], "'user' of .* has no value in row 2"),
        ("user", ["x" * 300], "'user' .* 1 to 256 characters"),
        ("ts", ["noon"], "'ts' of .*events.csv has 'noon' in row 1"),
        ("ts", [1_500_000_000_000], r"has '1500000000000' .*\(divide milliseconds by 1000\)"),
        ("ts", ["inf"], "has 'inf' in row 1"),
        ("rating", [4, 9], "'rating' .* has '9' in row 2: .*0 to 5"),
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
    with pytest.raises(DataError, match=r"events.csv has no column 'item': it has user, ts\."):
        tables.ids(read_table(write_table(tmp_path, "events.csv", {"user": [1], "ts": [1]})), "item")


def test_datetime_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a plain number"):
        read(tmp_path, "ts", list(pd.to_datetime(["2020-01-01"])), "events.parquet")


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
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
            read_table(tmp_path / name)
