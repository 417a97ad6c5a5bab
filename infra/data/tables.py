"""Columns of a CSV or Parquet file, read strictly: an invalid value is an error that names file, column and row.

Nothing is guessed: times are Unix seconds, ratings are 0 to 5. Only ids are converted, because the two files of a
dataset often disagree about their type: 12, '12' and the 12.0 of a float column are the same id.
"""

import re
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from infra.errors import PremiereError
from model.actions import ACTIONS
from streaming.records import MIN_TIME_MS

_MAX_TIME_S: Final = 253_402_300_800  # the year 10000
_MAX_ID_CHARACTERS: Final = 256  # characters
_MAX_TEXT_CHARACTERS: Final = 65_536  # characters of one text of a launch
_EMPTY_GENRES: Final = {"", "(no genres listed)"}


class DataError(PremiereError):
    """A dataset cannot be read. The message names the file and the column."""


class Table(NamedTuple):
    """The rows of a file, with the file name for messages."""

    file: str
    rows: pd.DataFrame

    def __contains__(self, column: object) -> bool:
        return column in self.rows

    def column(self, name: str) -> "pd.Series[Any]":
        """One column. Raises DataError if it is missing."""
        if name not in self.rows:
            raise DataError(f"{self.file} has no column '{name}': it has {', '.join(map(str, self.rows.columns))}.")
        return self.rows[name]

    def reject(self, name: str, bad_N: NDArray[np.bool_], want: str) -> None:
        """Raise DataError for the first bad row, if any."""
        if bad_N.any():
            row = int(np.argmax(bad_N))
            value = self.rows[name].iloc[row]
            shown = "no value" if pd.isna(value) else f"'{value}'"
            raise DataError(f"Column '{name}' of {self.file} has {shown} in row {row + 1}: {want}.")


def read_table(path: Path) -> Table:
    """Read a CSV or Parquet file. CSV cells stay text, so that an id '007' keeps its zeros."""
    try:
        if path.suffix == ".parquet":
            return Table(str(path), pd.read_parquet(path))
        if path.name.endswith((".csv", ".csv.gz")):
            return Table(str(path), pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""]))
    except (OSError, ValueError, pa.ArrowException) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0].rstrip('.')}.") from error
    raise DataError(f"{path} is neither CSV nor Parquet: name it .csv, .csv.gz or .parquet.")


def ids(table: Table, name: str) -> tuple[NDArray[np.int32], list[str]]:
    """Ids as codes, and the distinct ids as strings in order of appearance."""
    raw_N, distinct = pd.factorize(table.column(name).astype(object))
    table.reject(name, raw_N < 0, "an id is missing")
    names = [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in distinct]
    if all(re.fullmatch(r"-?\d+\.0", v) for v in names):  # a float column that went through CSV
        names = [v[:-2] for v in names]
    bad_V = np.array([not 0 < len(v) <= _MAX_ID_CHARACTERS for v in names], bool)
    table.reject(name, bad_V[raw_N], f"expected an id of 1 to {_MAX_ID_CHARACTERS} characters")
    merged_V, unique = pd.factorize(np.array(names, object))
    return merged_V[raw_N].astype(np.int32), [str(v) for v in unique]


def numbers(table: Table, name: str) -> NDArray[np.float64]:
    """A column of numbers; NaN for empty cells and for a missing column."""
    if name not in table:
        return np.full(len(table.rows), np.nan)
    column = table.column(name)
    if pd.api.types.is_datetime64_any_dtype(column):
        table.reject(name, column.notna().to_numpy(), "expected a plain number; for a time, Unix seconds")
    number_N: NDArray[np.float64] = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    table.reject(name, ~np.isfinite(number_N) & column.notna().to_numpy(), "expected a number")
    return number_N


def times(table: Table, name: str) -> NDArray[np.float64]:
    """Unix seconds as whole ms; NaN for empty cells."""
    second_N = numbers(table, name)
    bad_N = (second_N < MIN_TIME_MS / 1000) | (second_N >= _MAX_TIME_S)
    table.reject(name, bad_N, "expected Unix seconds since 1900 (divide milliseconds by 1000)")
    return np.rint(second_N * 1000)


def dates(table: Table, name: str) -> NDArray[np.float64]:
    """Dates as ms at midnight UTC; NaN for empty, unreadable or pre-1900 dates, which are common in metadata."""
    if name not in table:
        return np.full(len(table.rows), np.nan)
    stamp = pd.to_datetime(table.column(name), errors="coerce", format="mixed", utc=True).dt.tz_localize(None)
    ms_N = stamp.to_numpy("datetime64[ms]").astype(np.int64).astype(np.float64)
    return np.where(stamp.isna() | (ms_N < MIN_TIME_MS), np.nan, ms_N)


def years(table: Table, name: str) -> NDArray[np.float64]:
    """Whole years; NaN for empty cells."""
    year_N = numbers(table, name)
    bad_N = (year_N < 1) | (year_N > 9999) | (year_N % 1 > 0)
    table.reject(name, bad_N, "expected a whole year from 1 to 9999 (leave it empty if unknown)")
    return year_N


def ratings(table: Table, name: str) -> NDArray[np.float64]:
    """Ratings; NaN for empty cells."""
    rating_N = numbers(table, name)
    table.reject(name, (rating_N < 0) | (rating_N > 5), "expected a rating from 0 to 5 (rescale it)")
    return rating_N


def actions(table: Table, name: str) -> NDArray[np.uint8]:
    """Codes of ACTIONS; an empty cell is a play."""
    if name not in table:
        return np.full(len(table.rows), ACTIONS["play"].code, np.uint8)
    code_N = table.column(name).fillna("play").map({name: meaning.code for name, meaning in ACTIONS.items()})
    table.reject(name, code_N.isna().to_numpy(), f"expected one of {', '.join(ACTIONS)}")
    return np.asarray(code_N, np.uint8)


def texts(table: Table, name: str) -> list[str]:
    """A column as text; empty for empty cells and for a missing column."""
    if name not in table:
        return [""] * len(table.rows)
    return ["" if _is_empty(value) else str(value)[:_MAX_TEXT_CHARACTERS] for value in table.column(name)]


def genres(table: Table, name: str) -> list[list[str]]:
    """Lists of genres, from lists or from text separated by '|'."""
    if name not in table:
        return [[] for _ in range(len(table.rows))]
    return [_genres(value) for value in table.column(name)]


def _genres(value: object) -> list[str]:
    if _is_empty(value):
        return []
    parts = value.split("|") if isinstance(value, str) else list(value)  # type: ignore[call-overload]
    return [part for part in (str(p).strip() for p in parts) if part not in _EMPTY_GENRES]


def _is_empty(value: object) -> bool:
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))  # type: ignore[call-overload]
