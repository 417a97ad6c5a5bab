"""CSV and Parquet files as tables: no row is repaired and no name is guessed.

A CSV row must have as many cells as the header, else its values could be read into other columns. An invalid row or
value is an error that names the file, the row and the column. With `Findings`, as in `premiere check`, all of them are
collected instead, and the invalid values are read as empty.
"""

import csv
import gzip
import io
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infra.errors import PremiereError

_SHOWN_CHARACTERS: Final = 60  # of a value in a message
_MAX_ROW_BYTES: Final = 1 << 24  # of a CSV row
_OTHER_FORMATS: Final = {  # first bytes -> what a file is that is called .csv
    b"PAR1": "a Parquet file: name it .parquet",
    b"\x1f\x8b": "compressed: name it .csv.gz",
    b"PK\x03\x04": "a zip archive or a spreadsheet: save it as CSV",
}
_READ_ERRORS: Final = (OSError, ValueError, OverflowError, KeyError, EOFError, pa.ArrowException, csv.Error)


class DataError(PremiereError):
    """A dataset cannot be read. The message names the file, the row and the column."""


class Finding(NamedTuple):
    """Rows of one column with the same problem, or with the same conversion."""

    column: str  # empty: of the whole file or row
    rows: int  # how many; 0: of the whole file
    row: int  # the first one, from 1
    value: str  # its value, as it is shown to people
    text: str  # what is expected, or what the value was converted to


@dataclass
class Findings:
    """The problems and conversions of one file."""

    problems: list[Finding] = field(default_factory=list)
    conversions: list[Finding] = field(default_factory=list)


class Table(NamedTuple):
    """The rows of a file, with the file name for messages. The index of `rows` has the row numbers, from 0."""

    file: str
    rows: pd.DataFrame
    findings: Findings | None = None  # None: the first problem raises DataError

    def __contains__(self, column: object) -> bool:
        return column in self.rows

    def column(self, name: str) -> "pd.Series[Any]":
        """One column. Raises DataError if it is missing."""
        if name in self.rows:
            return self.rows[name]
        names = ", ".join(f"'{column}'" for column in self.rows.columns)
        self.fail(name, f"{self.file} has no column '{name}': it has {names}.{self._hint(name)}")
        return pd.Series(None, self.rows.index, object)

    def _hint(self, name: str) -> str:
        found = [str(column) for column in self.rows.columns]
        if len(found) == 1 and any(mark in found[0] for mark in ";\t|"):
            return " Separate the columns by commas."
        similar = next((column for column in found if column.strip().lower() == name), None)
        return f" Rename '{similar}' to '{name}'." if similar else ""

    def fail(self, name: str, message: str) -> None:
        """Raise DataError, or note a problem of the whole file."""
        if self.findings is None:
            raise DataError(message)
        if (problem := Finding(name, 0, 0, "", message)) not in self.findings.problems:  # several readers may find it
            self.findings.problems.append(problem)

    def reject(self, name: str, bad_N: NDArray[np.bool_], want: str) -> None:
        """Raise DataError for the first bad row, if any, or note all of them."""
        if not bad_N.any() or name not in self.rows:
            return
        found = self._finding(name, bad_N, want)
        if self.findings is None:
            raise DataError(f"Column '{name}' of {self.file} has {found.value} in row {found.row}: {want}.")
        self.findings.problems.append(found)

    def note(self, name: str, converted_N: NDArray[np.bool_], text: str) -> None:
        """Note that values were converted."""
        if self.findings is not None and converted_N.any():
            self.findings.conversions.append(self._finding(name, converted_N, text))

    def _finding(self, name: str, bad_N: NDArray[np.bool_], text: str) -> Finding:
        first = int(np.argmax(bad_N))
        row = int(self.rows.index[first]) + 1
        return Finding(name, int(np.count_nonzero(bad_N)), row, shown(self.rows[name].iloc[first]), text)


def is_missing(value: object) -> bool:
    """Whether a cell is empty."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))  # type: ignore[call-overload]


def shown(value: object) -> str:
    """A cell's value for a message."""
    if is_missing(value):
        return "no value"
    text = repr(value) if isinstance(value, bytes) else f"'{value}'"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def read_table(path: Path, findings: Findings | None = None) -> Table:
    """Read a CSV or Parquet file. CSV cells stay text, so that an id '007' keeps its zeros. Raises DataError."""
    try:
        if path.suffix == ".parquet":
            rows = pq.ParquetFile(path).read()
            _check_names(path, rows.column_names)
            return Table(str(path), rows.to_pandas(ignore_metadata=True), findings)
        if path.name.lower().endswith((".csv", ".csv.gz")):
            data = path.read_bytes()
            return _parse_csv(path, gzip.decompress(data) if path.suffix.lower() == ".gz" else data, findings)
    except _READ_ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror  # without the number and the path again
        raise DataError(f"{path} cannot be read: {reason}.") from error
    raise DataError(f"{path} is neither CSV nor Parquet: name it .csv, .csv.gz or .parquet.")


def _parse_csv(path: Path, data: bytes, findings: Findings | None) -> Table:
    """The rows of CSV text. Rows with too few or too many cells are refused."""
    header = _csv_header(path, data)
    _check_names(path, header)
    wrong: list[pc.InvalidRow] = []

    def skip(row: pc.InvalidRow) -> str:
        wrong.append(row)
        return "skip"

    rows = pc.read_csv(
        pa.BufferReader(data),
        pc.ReadOptions(use_threads=False, block_size=_MAX_ROW_BYTES),  # one thread: rows are numbered
        pc.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        pc.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), null_values=[""], strings_can_be_null=True),
    ).to_pandas()
    return _with_row_numbers(path, rows, header, wrong, findings)


def _csv_header(path: Path, data: bytes) -> list[str]:
    """The names of the columns. Raises DataError if the file is no CSV text, or if a quote is not closed."""
    for magic, hint in _OTHER_FORMATS.items():
        if data.startswith(magic):
            raise DataError(f"{path} is {hint}.")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path} is not UTF-8 text in line {line}: save it as UTF-8.") from None
    csv.field_size_limit(_MAX_ROW_BYTES)
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline=""), strict=True)
    try:
        header = next((cells for cells in reader if cells), [])
        if b'"' in data:  # the parser below accepts text after a closing quote, and an unclosed quote
            deque(reader, maxlen=0)
    except csv.Error as error:
        hint = "put a text that contains a quote in quotes, and double the quotes in it"
        raise DataError(f'{path} has a wrong quote (") in line {reader.line_num} ({error}): {hint}.') from None
    if not header:
        raise DataError(f"{path} is empty: the first row must name the columns.")
    return header


def _with_row_numbers(
    path: Path, rows: pd.DataFrame, header: Sequence[str], wrong: list[pc.InvalidRow], findings: Findings | None
) -> Table:
    """The table without the rows that have too few or too many cells. Raises DataError for the first of them."""
    if wrong:
        first, names = wrong[0], ", ".join(f"'{name}'" for name in header)
        row, most = (
            first.number - 1,
            f"{len(header)} ({names[:_SHOWN_CHARACTERS]}{'…' * (len(names) > _SHOWN_CHARACTERS)})",
        )
        cells = f"{first.actual_columns} cell{'s' * (first.actual_columns != 1)}, but the header has {most}"
        hint = 'put a text that contains a comma in quotes (")'
        if first.actual_columns < len(header):
            hint = "write each missing value as an empty cell"
        elif first.actual_columns == len(header) + 1 and first.text.rstrip().endswith(","):
            hint = "remove the comma at its end"
        if findings is None:
            raise DataError(f"Row {row} of {path} has {cells}: {hint}.")
        findings.problems.append(Finding("", len(wrong), row, cells, hint))
        numbers = np.delete(np.arange(len(rows) + len(wrong)), [row.number - 2 for row in wrong])
        rows = rows.set_axis(pd.Index(numbers))
    return Table(str(path), rows, findings)


def _check_names(path: Path, names: Iterable[str]) -> None:
    """Raise DataError if two columns have the same name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{path} has the column '{name}' twice: rename or remove one.")
        seen.add(name)
