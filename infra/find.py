"""Where a data set comes from when a command needs one: given, beside the checkout, fetched, or simulated."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from infra.datasets import DataError, DataSet, load
from infra.simulate import audience

FETCHED: Final = ("ml-latest-small", "ml-100k")  # under <data_dir>/data, best first
_NEIGHBOUR: Final = Path("../shared/data/ml-small-2016")  # beside the checkout, where present


def find(
    events: Path | None = None,
    titles: Path | None = None,
    text: Sequence[str] = (),
    *,
    checkout: Path,
    data_dir: Path,
    folder: Path | None = None,
    seed: int = 0,
) -> DataSet:
    """The given files; else `folder` ($PREMIERE_DATA); else beside the checkout; else fetched; else simulated."""
    if events:
        return load(events, titles, text)
    if titles:
        raise DataError(f"{titles} came without events: give --events too.")
    if folder:
        return _from_folder(folder, text)
    for place in (checkout / _NEIGHBOUR, *(data_dir / "data" / name for name in FETCHED)):
        if _member(place, "events"):
            return _from_folder(place, text)
    return audience(seed=seed)


def _from_folder(folder: Path, text: Sequence[str]) -> DataSet:
    events, titles = _member(folder, "events"), _member(folder, "titles")
    if not (events and titles):
        raise DataError(f"{folder} lacks events or titles: put events.csv and titles.csv (or .parquet) there.")
    return load(events, titles, text, name=folder.resolve().name)


def _member(folder: Path, stem: str) -> Path | None:
    names = (f"{stem}.parquet", f"{stem}.csv", f"{stem}.csv.gz")
    return next((folder / name for name in names if (folder / name).is_file()), None)
