"""Locates the dataset of a command: files given, PREMIERE_DATA, a download, or simulated users."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from infra.data.datasets import DataError, Dataset, load
from infra.data.simulate import simulate

DOWNLOADED: Final = ("ml-latest-small", "ml-100k")  # under <data_dir>/data, best first


def locate(
    events: Path | None = None,
    titles: Path | None = None,
    text: Sequence[str] = (),
    *,
    data_dir: Path,
    folder: Path | None = None,
    seed: int = 0,
) -> Dataset:
    """The given files; else `folder` ($PREMIERE_DATA); else downloaded; else simulated."""
    if events:
        return load(events, titles, text)
    if titles:
        raise DataError(f"{titles} needs events: give --events too.")
    if folder:
        return _from_folder(folder, text)
    for place in (data_dir / "data" / name for name in DOWNLOADED):
        if _member(place, "events"):
            return _from_folder(place, text)
    return simulate(seed=seed)


def _from_folder(folder: Path, text: Sequence[str]) -> Dataset:
    events, titles = _member(folder, "events"), _member(folder, "titles")
    if not (events and titles):
        raise DataError(f"{folder} lacks events or titles: put events.csv and titles.csv (or .parquet) there.")
    return load(events, titles, text, name=folder.resolve().name)


def _member(folder: Path, stem: str) -> Path | None:
    names = (f"{stem}.parquet", f"{stem}.csv", f"{stem}.csv.gz")
    return next((folder / name for name in names if (folder / name).is_file()), None)
