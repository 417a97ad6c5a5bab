"""`premiere data`: a real data set from where one can be reached, as events and titles in Parquet.

First MovieLens latest-small from GroupLens; where that is out of reach, MovieLens-100K, which lies in the wheel of
RecBole, taken with pip from whatever package index it is set up for. Everything is bounded and nothing is half there: a
set appears under its name in one step. Being offline is an answer, not an error.
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
    "(c) GroupLens, University of Minnesota: research use, to be cited, no commercial use without permission"
)
_PIP: Final = 180.0  # seconds for pip, download included
_LARGEST: Final = 64 * 2**20  # bytes: the archives are of 1 and 2 MB
_YEAR: Final = r"^(?P<title>.*?)\s*(?:\((?P<year>\d{4})\))?\s*$"


class Fetched(NamedTuple):
    """What was got: the folder with events.parquet and titles.parquet, or None; and a sentence to show."""

    folder: Path | None
    said: str


Tables = tuple[pd.DataFrame, pd.DataFrame]  # events, titles


def fetch(data_dir: Path, url: str = GROUPLENS, wheel: str = "recbole", timeout: float = 20.0) -> Fetched:
    """Fetch the best data set in reach into <data_dir>/data, or tell why there is none; one that is there is kept.

    `timeout` (seconds) bounds each step of the download from `url`, ten times that the whole; `wheel` is what pip gets.
    """
    sources: dict[str, Callable[[], Tables]] = {
        "ml-latest-small": lambda: _latest_small(_download(url, timeout)),
        "ml-100k": lambda: _out_of_recbole(_pip(wheel)),
    }
    reasons = []
    for name, get in sources.items():
        folder = data_dir / "data" / name
        if (folder / "titles.parquet").is_file():
            return Fetched(folder, f"{name} is already in {folder}. Terms: {_TERMS}.")
        try:
            events, titles = get()
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, subprocess.SubprocessError) as error:
            reasons.append(f"{name}: {_line(error)}")
            continue
        _keep(folder, events, titles)
        counts = f"{len(events):,} events of {events.user.nunique():,} users on {len(titles):,} titles"
        return Fetched(folder, f"{name}: {counts}, in {folder}. Terms: {_TERMS}.")
    return Fetched(
        None, f"No data set could be fetched ({'; '.join(reasons)}): give your own with --events and --titles."
    )


def _download(url: str, timeout: float) -> bytes:
    body, give_up = bytearray(), time.monotonic() + 10 * timeout
    with urlopen(url, timeout=timeout) as answer:
        while part := answer.read1(1 << 16):
            body += part
            if len(body) > _LARGEST:
                raise ValueError(f"{url} is larger than {_LARGEST >> 20} MiB")
            if time.monotonic() > give_up:
                raise TimeoutError(f"{url} takes longer than {10 * timeout:g} s")
    return bytes(body)


def _pip(wheel: str) -> bytes:
    """The wheel's bytes; pip knows the index, the proxy and the certificates of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        options = ["--disable-pip-version-check", "--no-input", "--retries=1", "--timeout=20", "--dest", folder]
        subprocess.run([*command, *options, wheel], check=True, capture_output=True, text=True, timeout=_PIP)
        return next(Path(folder).glob("*.whl")).read_bytes()


def _latest_small(archive: bytes) -> Tables:
    """ratings.csv (userId, movieId, rating, timestamp) and movies.csv (movieId, "title (year)", genres with '|')."""
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        ratings = pd.read_csv(io.BytesIO(files.read("ml-latest-small/ratings.csv")))
        movies = pd.read_csv(io.BytesIO(files.read("ml-latest-small/movies.csv")))
    names = {"userId": "user", "movieId": "item", "timestamp": "ts"}
    titles = movies.title.str.extract(_YEAR).assign(item=movies.movieId, genres=movies.genres)
    return ratings.rename(columns=names)[["user", "item", "rating", "ts"]], _tidy(titles)


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
    return events[["user", "item", "rating", "ts"]], _tidy(titles)


def _tidy(titles: pd.DataFrame) -> pd.DataFrame:
    years = pd.to_numeric(titles.year, errors="coerce").astype("Int64")
    return titles.assign(year=years)[["item", "title", "year", "genres"]]


def _keep(folder: Path, events: pd.DataFrame, titles: pd.DataFrame) -> None:
    """Write both files and let the folder appear whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".fetch-", dir=folder.parent))
    try:
        events.to_parquet(staged / "events.parquet", index=False)
        titles.to_parquet(staged / "titles.parquet", index=False)
        shutil.rmtree(folder, ignore_errors=True)
        staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _line(error: Exception) -> str:
    """The last line of what went wrong: pip says it last."""
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) and error.stderr else str(error)
    return said.strip().splitlines()[-1].removeprefix("ERROR: ") if said.strip() else type(error).__name__
