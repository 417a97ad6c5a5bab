"""The records and rows of titles, which the flow `titles` makes of their changes."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.text_encoders import TextEncoder
from streaming.kafka.sink import Outgoing
from streaming.records import CatalogTitle, Title, to_msgpack
from streaming.state.title_state import TitleChange
from streaming.state.user_history import UNIX_EPOCH
from streaming.topics import ACTIVITY, TITLES

TitleRow = dict[str, Any]


def embed(changes: Sequence[TitleChange], encode: TextEncoder) -> list[CatalogTitle]:
    """The titles after their changes, in the order of their stamps. All texts are embedded in one call."""
    ordered = sorted(changes, key=lambda change: (change.stamp, change.offset))
    vectors = encode([change.content.text for change in ordered])
    assert len(vectors) == len(ordered), "an encoder returns one row per text"
    return [_title(change, vector, encode.name) for change, vector in zip(ordered, vectors, strict=True)]


def _title(change: TitleChange, vector: NDArray[np.float32], encoder: str) -> CatalogTitle:
    title, content, launched, stamp, withdrawn, appended, offset = change
    return CatalogTitle(
        title=title,
        name=content.name,
        genres=list(content.genres),
        year=content.year,
        released=content.released,
        launched=launched,
        stamp=stamp,
        withdrawn=withdrawn,
        semantic=embedding(vector),
        appended=appended,
        offset=offset,
        encoder=encoder,
        text=content.text,
    )


def embedding(vector: NDArray[np.float32]) -> bytes:
    """A text's vector as records carry it; empty for a text without a known token."""
    return vector.astype("<f4").tobytes() if vector.any() else b""


def catalog_record(title: CatalogTitle) -> Outgoing:
    """The title's record for the topic `titles`."""
    return Outgoing(TITLES, title.title.encode(), to_msgpack(title))


def log_record(title: CatalogTitle) -> Outgoing:
    """The title's record for the learner log, which does not need the text."""
    plain = Title(**{name: getattr(title, name) for name in Title.__struct_fields__})
    return Outgoing(ACTIVITY, title.title.encode(), to_msgpack(plain))


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
