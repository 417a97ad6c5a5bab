"""Embeds titles from two sources: their text, and a vector that their launch brings, for example of an image.

The embedding of a title is both vectors, one behind the other, scaled to unit length; zeros stand for a source that the
title does not have. So the title tower, whose first layer is linear, has a linear map for each source and sums them,
and the cosine of two titles is the mean of the cosines of their sources. A title may have either source, both or none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.text_encoders import TextEncoder
from model.state.embedding_space import EmbeddingSpace
from streaming.kafka.dead_letters import InvalidRecord
from streaming.records import Launch


class VectorSpace(NamedTuple):
    """The space of the vectors that launches bring."""

    name: str
    width: int

    @classmethod
    def parse(cls, text: str) -> "VectorSpace | None":
        """The space of a setting `NAME:WIDTH`; None if it is empty."""
        name, _, width = text.rpartition(":")
        return cls(name, int(width)) if text else None


@dataclass(frozen=True)
class TitleEmbedder:
    """A text encoder and the space of the launches' own vectors, if they have any."""

    text: TextEncoder
    vectors: VectorSpace | None = None

    @property
    def space(self) -> EmbeddingSpace:
        """The space of the titles' embeddings."""
        if self.vectors is None:
            return EmbeddingSpace(self.text.name, self.text.width)
        return EmbeddingSpace(f"{self.text.name} + {self.vectors.name}", self.text.width + self.vectors.width)

    def embed(self, texts: Sequence[str], vectors: Sequence[tuple[str, bytes]]) -> list[bytes]:
        """The embeddings of titles as records carry them; empty for a title with neither text nor vector.

        `vectors` are names of spaces and unit vectors, float32 little-endian. A vector of another space is left out.
        All texts are embedded in one call.
        """
        text_NE = self.text(texts)
        assert len(text_NE) == len(vectors), "an encoder returns one row per text"
        if self.vectors is not None:
            own_NE = np.zeros((len(vectors), self.vectors.width), np.float32)
            for row, (space, vector) in zip(own_NE, vectors, strict=True):
                if (space, len(vector) // 4) == self.vectors:
                    row[:] = np.frombuffer(vector, "<f4")
            text_NE = np.concatenate([text_NE, own_NE], 1)
            has_both = text_NE[:, : self.text.width].any(1) & own_NE.any(1)
            text_NE[has_both] /= np.float32(2**0.5)
        return [vector.astype("<f4").tobytes() if vector.any() else b"" for vector in text_NE]


def launch_vector(launch: Launch, space: VectorSpace | None) -> bytes:
    """The own vector of a launch, scaled to unit length, as float32 little-endian bytes; empty if it has none.

    Raises InvalidRecord if it is not of the space.
    """
    if not (launch.vector or launch.space):
        return b""
    if space is None:
        raise InvalidRecord("out of range: the launch has a vector, and the setting title_vectors is empty")
    if (launch.space, len(launch.vector)) != space:
        found = f"{launch.space!r} with {len(launch.vector)} numbers"
        raise InvalidRecord(f"out of range: the vector is of the space {found}, not {space.name!r} with {space.width}")
    vector: NDArray[np.float64] = np.array(launch.vector, np.float64)
    largest = np.abs(vector).max()
    if not 0 < largest < np.inf:  # also false for NaN
        raise InvalidRecord("out of range: the vector has only zeros, or a number that is not finite")
    scaled = vector / largest  # no square overflows
    unit: NDArray[np.float32] = (scaled / np.linalg.norm(scaled)).astype("<f4")
    return unit.tobytes()
