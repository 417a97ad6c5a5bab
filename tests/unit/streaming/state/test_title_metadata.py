"""A title record of the log becomes the model's title metadata."""

import numpy as np

from streaming.records import Title
from streaming.state.title_metadata import title_metadata


def record(semantic: bytes, withdrawn: bool = False) -> Title:
    return Title(
        title="t7", name="Alien", genres=["Horror", "SciFi"], year=1979, released=296_000_000_000, withdrawn=withdrawn,
        semantic=semantic, launched=1, stamp=2, appended=3, offset=4,
    )  # fmt: skip


def test_title_record_becomes_metadata() -> None:
    vector = np.array([0.25, -0.5, 1e-20], "<f4")
    title, semantic, *others = title_metadata(record(vector.tobytes()))
    assert (title, *others) == ("t7", ["Horror", "SciFi"], 1979, 296_000_000_000, False, 2, 3)
    assert semantic.dtype == np.float32
    assert semantic.tolist() == vector.tolist()


def test_withdrawn_title_without_text_has_an_empty_embedding() -> None:
    found = title_metadata(record(b"", withdrawn=True))
    assert (found.semantic.shape, found.withdrawn) == ((0,), True)
