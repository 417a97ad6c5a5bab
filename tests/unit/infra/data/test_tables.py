"""Files become tables without any repair: a row or a name that does not fit is refused with file, row and column."""

import gzip
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.data.tables import DataError, Findings, read_table
from tests.support.tables import write_table


def csv(folder: Path, text: str | bytes, name: str = "events.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item,ts\na,x,1,\n", "Row 1 of .*events.csv has 4 cells, but the header has 3"),
        ("user,item,ts\na,x,1\n\nb,y,2\nc,The Good, the Bad,3\n", "Row 3 of .* has 4 cells, but the header has 3"),
        ("user,item,ts\na,x,1,2,3\nb,y\n", "Row 1 of .* has 5 cells"),
        ("user,item,ts\na,x,1\nb,y\n", "Row 2 of .* has 2 cells, but the header has 3 .*: write each missing value"),
        ('user,item\n"a\nb",x\nc\n', "Row 2 of .* has 1 cell, but the header has 2 .'user', 'item'."),
        ("user,item,ts,ts\na,x,1,2\n", "has the column 'ts' twice"),
        ("user,item,ts\na,x,1,\n", "remove the comma at its end"),
        ('user,item\na,"x\nb,y\n', "has a wrong quote .* in line 3"),
        ('user,item\na,x\nb,"x"y\n', "has a wrong quote .* in line 3"),
        (b"PAR1\x15", "is a Parquet file: name it .parquet"),
        (gzip.compress(b"user,item\n", mtime=0), "is compressed: name it .csv.gz"),
        (b"PK\x03\x04\x14", "is a zip archive or a spreadsheet"),
        ("", "is empty: the first row must name the columns"),
        ("\n\n", "is empty: the first row must name the columns"),
        ("user,item\na,x\n".encode("utf-16"), "not UTF-8 text in line 1: save it as UTF-8"),
        (b"user,item\na,x\nb,\xe9t\xe9\n", "not UTF-8 text in line 3: save it as UTF-8"),
    ],
)
def test_csv_that_would_need_repair_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(csv(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "user,item\na,x y\nb,\n",
        '\ufeff"user",item\r\na,x y\r\n\r\nb,""\r\n',
        "user,item\ra,x y\rb,\r",
        'user,item\n"a","x y"\nb,',
    ],
)
@pytest.mark.parametrize("name", ["events.csv", "events.csv.gz", "EVENTS.CSV", "Events.Csv.GZ"])
def test_equivalent_csv_files_give_equal_tables(tmp_path: Path, text: str, name: str) -> None:
    data = text.encode()
    rows = read_table(csv(tmp_path, gzip.compress(data) if name.lower().endswith("gz") else data, name)).rows
    assert {column: rows[column].tolist() for column in rows} == {"user": ["a", "b"], "item": ["x y", None]}


def test_quoted_cells_keep_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    rows = read_table(csv(tmp_path, 'item,title\n1,"Good, The"\n2,"a ""b""\nc"\n3,5" disk\n')).rows
    assert rows["title"].tolist() == ["Good, The", 'a "b"\nc', '5" disk']


def test_header_without_rows_is_an_empty_table(tmp_path: Path) -> None:
    rows = read_table(csv(tmp_path, "user,item\n")).rows
    assert (list(rows), len(rows)) == (["user", "item"], 0)


def test_findings_count_wrong_rows_and_keep_the_numbers_of_the_others(tmp_path: Path) -> None:
    findings = Findings()
    table = read_table(csv(tmp_path, "a,b\n1,2\n1,2,3\n\n1\n4,5\n"), findings)
    (problem,) = findings.problems
    assert (problem.rows, problem.row) == (2, 2)
    assert table.rows["a"].to_dict() == {0: "1", 3: "4"}


def test_missing_column_names_the_columns_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"events.csv has no column 'ts': it has 'user', ' item'\.$"):
        read_table(csv(tmp_path, "user, item\na,x\n")).column("ts")
    for name in (" item", "Item"):
        with pytest.raises(DataError, match=f"Rename '{name}' to 'item'"):
            read_table(csv(tmp_path, f"user,{name}\na,x\n")).column("item")
    with pytest.raises(DataError, match=r"Separate the columns by commas\."):
        read_table(csv(tmp_path, "user;item;ts\na;x;1\n")).column("ts")


def test_parquet_index_is_a_column(tmp_path: Path) -> None:
    pd.DataFrame({"user": ["a"], "item": ["x"]}).set_index("user").to_parquet(tmp_path / "events.parquet")
    assert set(read_table(tmp_path / "events.parquet").rows) == {"user", "item"}


def test_parquet_folder_adds_no_column(tmp_path: Path) -> None:
    path = write_table(tmp_path / "user=b", "events.parquet", {"item": ["x"]})
    assert list(read_table(path).rows) == ["item"]


def test_duplicate_parquet_columns_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["ts", "ts"]), tmp_path / "events.parquet")
    with pytest.raises(DataError, match="has the column 'ts' twice"):
        read_table(tmp_path / "events.parquet")


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    (tmp_path / "broken.csv.gz").write_bytes(b"user,item\n")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"user,item\n")[:-9])
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "events.txt").touch()
    for name, message in {
        "absent.csv": "absent.csv cannot be read: .*No such file",
        "broken.parquet": "broken.parquet cannot be read",
        "broken.csv.gz": "broken.csv.gz cannot be read",
        "cut.csv.gz": "cut.csv.gz cannot be read",
        "folder.csv": "folder.csv cannot be read",
        "events.txt": "neither CSV nor Parquet",
    }.items():
        with pytest.raises(DataError, match=message):
            read_table(tmp_path / name)


def test_error_of_the_file_system_has_no_number_and_no_second_path(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "missing.csv")
    assert str(caught.value) == f"{tmp_path / 'missing.csv'} cannot be read: No such file or directory."
