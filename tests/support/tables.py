"""Writes CSV and Parquet files for the tests of datasets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd


def write_table(folder: Path, name: str, rows: Mapping[str, Any]) -> Path:
    """Write columns to a file in `folder`, as Parquet or CSV by its name, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path, frame = folder / name, pd.DataFrame(dict(rows))
    frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)
    return path
