"""Convert a title record into the model's title metadata; the learner and `publish` share it."""

import logging
from typing import Final

import numpy as np
from prometheus_client import Counter

from model.state.embedding_space import EmbeddingSpace
from model.state.stream_state import TitleMetadata
from streaming.records import Title

OTHER_TEXT: Final = Counter(
    "premiere_other_encoder_titles_total", "Title records in the learner log whose text is of another encoder."
)

log: Final = logging.getLogger(__name__)


def has_other_text(title: Title, space: EmbeddingSpace) -> bool:
    """Whether the title has a text embedding that cannot be compared with those of the space."""
    return title.width > 0 and not space.contains(title.encoder, title.width)


def title_metadata(title: Title, space: EmbeddingSpace | None = None) -> TitleMetadata:
    """The title as the model takes it: its text embedding as a float32 array (empty without text), and its metadata.

    A text embedding of another space is left out: the title is then one without text. Without a `space`, any is taken.
    """
    is_other = space is not None and has_other_text(title, space)
    semantic = np.frombuffer(b"" if is_other else title.semantic, np.float32)
    metadata = title.genres, title.year, title.released, title.withdrawn, title.stamp, title.appended
    return TitleMetadata(title.title, semantic, *metadata)


def counted_metadata(title: Title, space: EmbeddingSpace) -> TitleMetadata:
    """`title_metadata`; counts and reports a text embedding of another space."""
    if has_other_text(title, space):
        OTHER_TEXT.inc()
        log.warning(
            "The text of title %s is embedded by %s (width %d), not by %s (width %d): the title is learned without it.",
            title.title, title.encoder or "an unknown encoder", title.width, *space,
        )  # fmt: skip
    return title_metadata(title, space)
