"""The records and rows of titles, which the flow `titles` makes of their changes."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from features.text_encoders import Encoder
from streaming.records import Title
from streaming.state.title_state import TitleChange
from streaming.state.user_history import UNIX_EPOCH

TitleRow = dict[str, Any]


def embed(changes: Sequence[TitleChange], encode: Encoder) -> list[Title]:
    """The titles after their changes, in the order of their stamps. All texts are embedded in one call."""
    ordered = sorted(changes, key=lambda change: (change.stamp, change.offset))
    vectors = encode([change.content.text for change in ordered])
    assert len(vectors) == len(ordered), "an encoder returns one row per text"
    return [_title(change, vector) for change, vector in zip(ordered, vectors, strict=True)]


def _title(change: TitleChange, vector: np.ndarray[Any, np.dtype[np.float32]]) -> Title:
    title, content, launched, stamp, withdrawn, appended, offset = change
    return Title(
        title=title,
        name=content.name,
        genres=list(content.genres),
        year=content.year,
        released=content.released,
        launched=launched,
        stamp=stamp,
        withdrawn=withdrawn,
        semantic=vector.astype("<f4").tobytes() if vector.any() else b"",
        appended=appended,
        offset=offset,
    )


def title_row(title: Title) -> TitleRow:
    """A title's row in the feature store (`features.definitions.TITLE_SEMANTICS_SCHEMA`)."""
    return {
        "title_id": title.title,
        "event_timestamp": UNIX_EPOCH + timedelta(microseconds=title.stamp),
        "created": UNIX_EPOCH + timedelta(milliseconds=title.appended),
        "name": title.name,
        "genres": title.genres,
        "year": title.year,
        "withdrawn": title.withdrawn,
        "semantic": np.frombuffer(title.semantic, "<f4").tolist(),
    }
