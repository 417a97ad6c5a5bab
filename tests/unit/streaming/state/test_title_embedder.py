"""Titles are embedded from their text and from the vector that their launch brings."""

import numpy as np
import pytest

from features.text_encoders import TextEncoder
from streaming.kafka.dead_letters import InvalidRecord
from streaming.records import Launch
from streaming.state.title_embedder import TitleEmbedder, VectorSpace, launch_vector
from tests.support.titles import encoder

IMAGES = VectorSpace("images", 3)
TEXT: TextEncoder = encoder("words", 2)
OWN = np.array([0, 0.6, 0.8], "<f4")


def vector(values: list[float], space: str = "images", to: VectorSpace | None = IMAGES) -> list[float]:
    found = launch_vector(Launch(title="t", vector=values, space=space), to)
    return [float(value) for value in np.frombuffer(found, "<f4")]


@pytest.mark.parametrize("text", ["x", ""])
@pytest.mark.parametrize("own", [OWN.tobytes(), b""])
def test_title_has_either_source_both_or_none(text: str, own: bytes) -> None:
    (found,) = TitleEmbedder(TEXT, IMAGES).embed([text], [("images" if own else "", own)])
    parts = np.concatenate([np.full(2, 2**-0.5) if text else np.zeros(2), OWN if own else np.zeros(3)])
    length = np.linalg.norm(parts)
    expected = parts / length if length else np.zeros(0)
    np.testing.assert_allclose(np.frombuffer(found, "<f4"), expected, rtol=1e-6)


def test_space_is_named_by_both_sources() -> None:
    assert TitleEmbedder(TEXT).space == ("words", 2)
    assert TitleEmbedder(TEXT, IMAGES).space == ("words + images", 5)


def test_without_own_vectors_the_embedding_is_that_of_the_text() -> None:
    found = TitleEmbedder(TEXT).embed(["x", ""], [("images", OWN.tobytes()), ("", b"")])
    assert found == [TEXT(["x"])[0].astype("<f4").tobytes(), b""]


def test_stored_vector_of_a_former_space_is_left_out() -> None:
    found = TitleEmbedder(TEXT, IMAGES).embed(["", ""], [("former", OWN.tobytes()), ("images", OWN[:2].tobytes())])
    assert found == [b"", b""]


@pytest.mark.parametrize("values", [[0, 3, 4], [0.0, 3e300, 4e300], [0.0, 3e-300, 4e-300]])
def test_vector_is_scaled_to_unit_length(values: list[float]) -> None:
    np.testing.assert_allclose(vector(values), OWN, rtol=1e-6)


def test_launch_without_a_vector_has_none() -> None:
    assert vector([], "") == vector([], "", None) == []


@pytest.mark.parametrize(
    ("values", "space", "to"),
    [
        ([1.0, 0, 0], "images", None),
        ([1.0, 0, 0], "audio", IMAGES),
        ([1.0, 0, 0], "", IMAGES),
        ([1.0, 0], "images", IMAGES),
        ([], "images", IMAGES),
        ([0.0, 0, 0], "images", IMAGES),
        ([float("nan"), 0, 0], "images", IMAGES),
        ([float("inf"), 0, 0], "images", IMAGES),
    ],
)
def test_other_vectors_are_invalid(values: list[float], space: str, to: VectorSpace | None) -> None:
    with pytest.raises(InvalidRecord, match=r"^out of range: "):
        vector(values, space, to)


def test_setting_names_the_space_and_its_width() -> None:
    assert VectorSpace.parse("") is None
    assert VectorSpace.parse("clip-b32:512") == ("clip-b32", 512)
