"""The space of text embeddings: vectors of one encoder can be compared with each other, and with no others."""

from typing import NamedTuple


class EmbeddingSpace(NamedTuple):
    """The vectors of one text encoder."""

    encoder: str  # its name; empty: not recorded
    width: int

    def contains(self, encoder: str, width: int) -> bool:
        """Whether vectors of this encoder and width are in the space. An encoder that is not recorded is the same."""
        return width == self.width and (encoder == self.encoder or not (encoder and self.encoder))
