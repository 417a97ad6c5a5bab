"""Locates the dataset of a command: files given, PREMIERE_DATA, a download, or simulated users."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from infra.data.datasets import DataError, Dataset, default_name, load
from infra.data.simulate import simulate
from streaming.records import MAX_RATING

DOWNLOADED: Final = ("ml-latest-small", "ml-100k")  # under <data_dir>/data, best first


class Files(NamedTuple):
    """The files of a dataset, and its name."""

    events: Path
    titles: Path | None
    name: str


def locate(
    events: Path | None = None,
    titles: Path | None = None,
    text: Sequence[str] = (),
    *,
    data_dir: Path,
    folder: Path | None = None,
    seed: int = 0,
    rating_max: float = MAX_RATING,
) -> Dataset:
    """The dataset of the files that `locate_files` finds, else of simulated users."""
    files = locate_files(events, titles, data_dir=data_dir, folder=folder)
    if files is None:
        return simulate(seed=seed)
    return load(files.events, files.titles, text, files.name, rating_max)


def locate_files(
    events: Path | None, titles: Path | None, *, data_dir: Path, folder: Path | None = None
) -> Files | None:
    """The given files; else those in `folder` ($PREMIERE_DATA); else downloaded ones; else None. Raises DataError."""
    if events:
        return Files(events, titles, default_name(events))
    if titles:
        raise DataError(f"{titles} needs events: give --events too.")
    if folder:
        return _in_folder(folder)
    downloaded = (data_dir / "data" / name for name in DOWNLOADED)
    return next((_in_folder(place) for place in downloaded if _member(place, "events")), None)


def _in_folder(folder: Path) -> Files:
    events, titles = _member(folder, "events"), _member(folder, "titles")
    if not (events and titles):
        raise DataError(f"{folder} lacks events or titles: put events.csv and titles.csv (or .parquet) there.")
    return Files(events, titles, folder.resolve().name)


def _member(folder: Path, stem: str) -> Path | None:
    names = (f"{stem}.parquet", f"{stem}.csv", f"{stem}.csv.gz")
    return next((folder / name for name in names if (folder / name).is_file()), None)
