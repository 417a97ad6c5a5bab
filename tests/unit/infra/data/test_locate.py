"""A command's dataset is located in the documented order."""

from pathlib import Path
from typing import Any

import pytest

from infra.data.datasets import DataError, Dataset
from infra.data.locate import locate
from tests.support.tables import write_table


def place(folder: Path, user: str) -> Path:
    write_table(folder, "events.csv", {"user": [user], "item": [1], "ts": [1]})
    write_table(folder, "titles.csv", {"item": [1], "title": ["A"]})
    return folder


def test_data_set_is_located_in_the_documented_order(tmp_path: Path) -> None:
    data_dir = tmp_path / "state"

    def found(**given: Any) -> Dataset:
        return locate(data_dir=data_dir, **given)

    assert found().simulated
    place(data_dir / "data" / "ml-100k", "fetched")
    assert found().users == ["fetched"]
    assert found().name == "ml-100k"
    place(data_dir / "data" / "ml-latest-small", "better")
    assert found().users == ["better"]
    named = place(tmp_path / "named", "named")
    assert found(folder=named).users == ["named"]
    own = place(tmp_path / "own", "own")
    assert found(folder=named, events=own / "events.csv", titles=own / "titles.csv").users == ["own"]
    with pytest.raises(DataError, match="give --events too"):
        found(titles=own / "titles.csv")
    with pytest.raises(DataError, match="lacks events or titles"):
        found(folder=tmp_path)
