"""Which text embeddings can be compared with each other."""

import pytest

from model.state.embedding_space import EmbeddingSpace


@pytest.mark.parametrize(
    ("encoder", "width", "is_inside"),
    [("a", 4, True), ("", 4, True), ("b", 4, False), ("a", 5, False), ("", 5, False)],
)
def test_space_contains_vectors_of_its_encoder_and_width(encoder: str, width: int, is_inside: bool) -> None:
    assert EmbeddingSpace("a", 4).contains(encoder, width) == is_inside


def test_space_of_an_encoder_that_is_not_recorded_contains_every_vector_of_its_width() -> None:
    assert EmbeddingSpace("", 4).contains("a", 4)
    assert not EmbeddingSpace("", 4).contains("a", 5)
