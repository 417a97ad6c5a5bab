"""The columns of a dataset, read strictly: an invalid value is refused with its file, column and row.

Nothing is guessed: times are Unix seconds, genres are separated by '|'. A cell is a text, a number, bytes in UTF-8, or
for genres a list of texts. Only ids are converted, because the two files of a dataset often disagree about their type:
12, '12' and the 12.0 of a float column are the same id. Limits are those of the flows, so that a row that is read is
not refused by a flow.
"""

import json
import re
from datetime import date
from decimal import Decimal
from numbers import Real
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from infra.data.tables import DataError, Table, is_missing
from model.actions import ACTIONS
from streaming.records import MAX_GENRE_CHARS, MAX_GENRES, MAX_ID_BYTES, MAX_RATING, MIN_TIME_MS

MAX_TEXT_CHARS: Final = 65_536  # of one text of a launch; a longer one is shortened
_MAX_TIME_S: Final = 253_402_300_800  # the year 10000
_TIME_UNITS: Final = {1e17: ("nanoseconds", 10**9), 1e14: ("microseconds", 10**6), 0.0: ("milliseconds", 1000)}
_RATING_SCALES: Final = (10, 20, 100)  # for the example in a message
_YEAR_LAST: Final = re.compile(r"\s*(\d{1,2})[\s./,-]+(\d{1,2})[\s./,-]+(\d{4})(?!\d)")  # 01/02/2024
_ROUNDED: Final = re.compile(r"-?\d\.\d+[eE]\+\d+")  # a large number in a spreadsheet: 1.23457E+17
_MISSING_WORDS: Final = {"nan", "null", "none", "na", "n/a", "undefined"}  # of other programs, for no value
_NO_GENRES: Final = {"", "(no genres listed)"}
_PLAIN: Final = {"string", "integer", "floating", "decimal", "mixed-integer-float", "empty"}  # of `infer_dtype`
_INVALID: Final = object()  # in place of an invalid cell


def ids(table: Table, name: str) -> tuple[NDArray[np.int32], list[str]]:
    """Ids as codes, and the distinct ids as strings in order of appearance; code -1 for an invalid id."""
    raw_N, distinct = pd.factorize(_texts(table, name, "expected an id as text or a whole number"))
    table.reject(name, table.column(name).isna().to_numpy(), "an id is missing")
    names = [str(value) for value in distinct]
    if all(re.fullmatch(r"-?\d+\.0", v) for v in names):  # a float column that went through CSV
        table.note(name, raw_N >= 0, "read without '.0'")
        names = [v[:-2] for v in names]
    lost_V = np.array([_ROUNDED.fullmatch(v) is not None for v in names] + [False], bool)  # code -1 is the last
    table.reject(name, lost_V[raw_N], "expected an id as text: a spreadsheet has rounded this number")
    padded_V = np.array([v != v.strip() for v in names] + [False], bool)
    table.note(name, padded_V[raw_N], "kept with the spaces around it")
    word_V = np.array([v.lower() in _MISSING_WORDS for v in names] + [False], bool)
    table.note(name, word_V[raw_N], "kept as an id: for a missing value the cell must be empty")
    bad_V = np.array([not 0 < len(v.encode()) <= MAX_ID_BYTES for v in names] + [False], bool)
    table.reject(name, bad_V[raw_N], f"expected an id of 1 to {MAX_ID_BYTES} bytes in UTF-8")
    merged_V, unique = pd.factorize(np.array(names, object))
    return np.append(merged_V, -1)[raw_N].astype(np.int32), [str(v) for v in unique]


def numbers(table: Table, name: str, want: str = "expected a number") -> NDArray[np.float64]:
    """A column of numbers; NaN for empty cells and for a missing column."""
    if name not in table:
        return np.full(len(table.rows), np.nan)
    cells = _plain_cells(table, name, "expected a plain number; for a time, Unix seconds")
    number_N = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64, True, np.nan)
    table.reject(name, ~np.isfinite(number_N) & cells.notna().to_numpy(), want)
    finite_N: NDArray[np.float64] = np.where(np.isfinite(number_N), number_N, np.nan)
    return finite_N


def times(table: Table, name: str) -> NDArray[np.float64]:
    """Unix seconds as whole ms; NaN for empty cells."""
    second_N = numbers(table, name, "expected a time as a number of Unix seconds, such as 1704067200")
    if name in table and table.column(name).dtype in (np.float16, np.float32):
        lost_N = np.abs(second_N) > _exact_floats(table.column(name))
        table.reject(name, lost_N, "expected Unix seconds in 64 bits: a 32-bit float loses up to two minutes")
    bad_N = (second_N < MIN_TIME_MS / 1000) | (second_N >= _MAX_TIME_S)
    table.reject(name, bad_N, f"expected Unix seconds since 1900{_unit_hint(second_N[bad_N])}")
    second_N[bad_N] = np.nan
    return np.rint(second_N * 1000)


def _unit_hint(bad: NDArray[np.float64]) -> str:
    """The factor to Unix seconds, judged by the first invalid value."""
    if not bad.size or bad[0] < _MAX_TIME_S:
        return ""
    unit, factor = next(found for least, found in _TIME_UNITS.items() if bad[0] >= least)
    return f"; it looks like {unit}: divide by {factor:,}"


def dates(table: Table, name: str) -> NDArray[np.float64]:
    """Dates as ms at midnight UTC; NaN for empty, unreadable or pre-1900 dates, which are common in metadata.

    Text without a year of four digits is unreadable: pandas would complete a time of day or "now" with today's date.
    A date such as 01/02/2024 is refused, because its first number may be the day or the month.
    """
    if name not in table:
        return np.full(len(table.rows), np.nan)
    column = table.column(name)
    cells = [None if is_missing(v) else v if isinstance(v, date) else _plain_cell(v) for v in column]
    bad_N = np.array([not isinstance(cell, str | date | None) for cell in cells], bool)
    table.reject(name, bad_N, "expected a date as text, such as 2006-07-08; for Unix seconds use launched_ts")
    ambiguous_N = np.array([_is_ambiguous(cell) for cell in cells], bool)
    table.reject(name, ambiguous_N, "day and month cannot be told apart: write the date as year-month-day")
    bad_N |= ambiguous_N
    readable = pd.Series([None if bad else cell for cell, bad in zip(cells, bad_N, strict=True)], dtype=object)
    with_year = [cell if not isinstance(cell, str) or re.search(r"\d{4}", cell) else None for cell in readable]
    stamp = pd.to_datetime(
        pd.Series(with_year, dtype=object), errors="coerce", format="mixed", utc=True
    ).dt.tz_localize(None)
    ms_N = stamp.to_numpy("datetime64[ms]").astype(np.int64).astype(np.float64)
    empty_N = (stamp.isna() | (ms_N < MIN_TIME_MS)).to_numpy()
    table.note(name, empty_N & readable.notna().to_numpy(), "left empty: no date from 1900 to 2261")
    return np.where(empty_N, np.nan, ms_N)


def _is_ambiguous(cell: object) -> bool:
    """Whether a date's first two numbers may be day and month in either order."""
    found = _YEAR_LAST.match(cell) if isinstance(cell, str) else None
    return found is not None and int(found[1]) != int(found[2]) and max(int(found[1]), int(found[2])) <= 12


def years(table: Table, name: str) -> NDArray[np.float64]:
    """Whole years; NaN for empty cells."""
    year_N = numbers(table, name)
    bad_N = (year_N < 1) | (year_N > 9999) | (year_N % 1 > 0)
    table.reject(name, bad_N, "expected a whole year from 1 to 9999 (leave it empty if unknown)")
    return np.where(bad_N, np.nan, year_N)


def ratings(table: Table, name: str, rating_max: float = MAX_RATING) -> NDArray[np.float64]:
    """Ratings from 0 to `rating_max`, converted to 0 to 5; NaN for empty cells."""
    if not 0 < rating_max < np.inf:
        raise DataError("The highest rating of the scale must be a number above 0.")
    rating_N = numbers(table, name)
    bad_N = (rating_N < 0) | (rating_N > rating_max)
    most = np.nanmax(rating_N[bad_N], initial=0.0)
    scale = next((scale for scale in _RATING_SCALES if most <= scale), most)
    hint = f"; ratings on a larger scale need the option --rating-max, such as --rating-max {scale:g}"
    table.reject(name, bad_N, f"expected a rating from 0 to {rating_max:g}{hint if most > rating_max else ''}")
    if rating_max != MAX_RATING:
        table.note(name, ~np.isnan(rating_N), f"multiplied by {MAX_RATING / rating_max:g}")
    return np.where(bad_N, np.nan, np.minimum(rating_N * MAX_RATING / rating_max, MAX_RATING))


def actions(table: Table, name: str) -> NDArray[np.uint8]:
    """Codes of ACTIONS; an empty cell is a play."""
    if name not in table:
        return np.full(len(table.rows), ACTIONS["play"].code, np.uint8)
    action = _texts(table, name, f"expected one of {', '.join(ACTIONS)}")
    table.note(name, table.column(name).isna().to_numpy(), "read as a play")
    code_N = action.fillna("play").map({name: meaning.code for name, meaning in ACTIONS.items()})
    table.reject(name, code_N.isna().to_numpy(), f"expected one of {', '.join(ACTIONS)}")
    return np.asarray(code_N.fillna(ACTIONS["play"].code), np.uint8)


def texts(table: Table, name: str) -> list[str]:
    """A column as text; empty for empty cells and for a missing column."""
    if name not in table:
        return [""] * len(table.rows)
    cells = _texts(table, name, "expected text").fillna("")
    long_N = (cells.str.len() > MAX_TEXT_CHARS).to_numpy(bool)
    table.note(name, long_N, f"shortened to {MAX_TEXT_CHARS:,} characters")
    return [str(cell) for cell in cells.str[:MAX_TEXT_CHARS]]


def genres(table: Table, name: str) -> list[list[str]]:
    """Lists of genres, from lists of texts, from JSON lists of texts, or from text separated by '|'."""
    if name not in table:
        return [[] for _ in range(len(table.rows))]
    column = table.column(name)
    lists = [_genres(value) for value in column]
    want = "expected genres separated by '|', or a list of texts"
    table.reject(name, np.array([found is None for found in lists], bool), want)
    found_R = [[genre for genre in found or () if genre not in _NO_GENRES] for found in lists]
    large_R = [len(found) > MAX_GENRES or any(len(genre) > MAX_GENRE_CHARS for genre in found) for found in found_R]
    table.reject(name, np.array(large_R, bool), f"expected at most {MAX_GENRES} genres of {MAX_GENRE_CHARS} characters")
    table.note(name, np.array([_has_null(value) for value in column], bool), "nulls are left out")
    is_text_R = np.array([isinstance(value, str | bytes) for value in column], bool)
    several_R = np.array([len(found) > 1 for found in found_R], bool)
    table.note(name, is_text_R & several_R, "read as a list of genres")
    comma_R = np.array([any("," in genre for genre in found) for found in found_R], bool)
    table.note(name, is_text_R & comma_R, "read as one genre with a comma: only '|' separates genres")
    return found_R


def _genres(value: object) -> list[str] | None:
    """The genres of a cell; None if the cell is invalid."""
    if is_missing(value):
        return []
    if isinstance(value, bytes):
        value = _plain_cell(value)
    if isinstance(value, str):
        value = value.strip()
        value = _json_list(value) if value.startswith(("[", "{")) else value.split("|")
    if not isinstance(value, list | tuple | np.ndarray):
        return None
    parts = [_plain_cell(part) for part in value if not is_missing(part)]
    return [part.strip() for part in parts] if all(isinstance(part, str) for part in parts) else None  # type: ignore[attr-defined]


def _has_null(value: object) -> bool:
    return isinstance(value, list | tuple | np.ndarray) and any(is_missing(part) for part in value)


def _json_list(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _texts(table: Table, name: str, want: str) -> "pd.Series[Any]":
    """A column as text, None for empty cells. A number becomes its digits."""
    cells = _plain_cells(table, name, want)
    if pd.api.types.infer_dtype(cells, skipna=True) in ("string", "empty"):
        return cells.astype(object).where(cells.notna(), None)
    exact = _exact_floats(cells)
    lost_N = np.array([isinstance(v, float) and abs(v) > exact for v in cells], bool)
    table.reject(name, lost_N, f"{want}; a float this large has lost digits")
    table.note(name, np.array([not isinstance(v, str) for v in cells], bool) & cells.notna().to_numpy(), "read as text")
    digits = [None if is_missing(v) or lost else _digits(v) for v, lost in zip(cells, lost_N.tolist(), strict=True)]
    return pd.Series(digits, cells.index, object)


def _exact_floats(column: "pd.Series[Any]") -> int:
    """Whole numbers up to this one are exact in a column of floats."""
    return 2 ** (np.finfo(column.dtype).nmant + 1) if column.dtype.kind == "f" else 2**53


def _digits(value: Any) -> str:
    return str(value) if isinstance(value, str) or value % 1 else str(int(value))


def _plain_cells(table: Table, name: str, want: str) -> "pd.Series[Any]":
    """A column of texts and numbers; empty for invalid cells."""
    column = table.column(name)
    if pd.api.types.infer_dtype(column, skipna=True) in _PLAIN:
        return column
    cells = [None if is_missing(value) else _plain_cell(value) for value in column.astype(object)]
    table.reject(name, np.array([cell is _INVALID for cell in cells], bool), want)
    decoded_N = [isinstance(value, bytes) and cell is not _INVALID for value, cell in zip(column, cells, strict=True)]
    table.note(name, np.array(decoded_N, bool), "read as text in UTF-8")
    return pd.Series([None if cell is _INVALID else cell for cell in cells], column.index, object)


def _plain_cell(value: object) -> object:
    """A text or a number as it is, bytes as text, else _INVALID."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return _INVALID
    is_boolean = isinstance(value, bool | np.bool_)
    return value if isinstance(value, str | Real | Decimal) and not is_boolean else _INVALID
