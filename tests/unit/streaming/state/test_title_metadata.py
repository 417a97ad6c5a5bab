"""A title record of the log becomes the model's title metadata."""

import numpy as np
from msgspec import structs

from model.state.embedding_space import EmbeddingSpace
from streaming.records import Title
from streaming.state.title_metadata import OTHER_TEXT, counted_metadata, title_metadata


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


def test_text_of_another_space_is_left_out_and_counted() -> None:
    title, before = record(np.ones(4, "<f4").tobytes()), OTHER_TEXT._value.get()
    assert len(counted_metadata(title, EmbeddingSpace("first", 4)).semantic) == 4  # its encoder is not recorded
    assert OTHER_TEXT._value.get() == before
    found = counted_metadata(title, EmbeddingSpace("first", 5))
    assert (found.title, len(found.semantic)) == ("t7", 0)
    assert len(title_metadata(structs.replace(title, encoder="second"), EmbeddingSpace("first", 4)).semantic) == 0
    assert OTHER_TEXT._value.get() == before + 1
    assert len(counted_metadata(record(b""), EmbeddingSpace("first", 5)).semantic) == 0
    assert OTHER_TEXT._value.get() == before + 1  # it has no text
