"""Convert a title record into the model's title metadata; the learner and `publish` share it."""

import numpy as np

from model.state.stream_state import TitleMetadata
from streaming.records import Title


def title_metadata(title: Title) -> TitleMetadata:
    """The title as the model takes it: its text embedding as a float32 array (empty without text), and its metadata."""
    semantic = np.frombuffer(title.semantic, np.float32)
    metadata = title.genres, title.year, title.released, title.withdrawn, title.stamp, title.appended
    return TitleMetadata(title.title, semantic, *metadata)
