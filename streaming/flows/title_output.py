"""The records and rows of titles, which the flow `titles` makes of their changes."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from streaming.kafka.sink import Outgoing
from streaming.records import CatalogTitle, Title, to_msgpack
from streaming.state.title_embedder import TitleEmbedder
from streaming.state.title_state import TitleChange
from streaming.state.user_history import UNIX_EPOCH
from streaming.topics import ACTIVITY, TITLES

TitleRow = dict[str, Any]


def embed(changes: Sequence[TitleChange], embedder: TitleEmbedder) -> list[CatalogTitle]:
    """The titles after their changes, in the order of their stamps. All texts are embedded in one call."""
    ordered = sorted(changes, key=lambda change: (change.stamp, change.offset))
    contents, encoder = [change.content for change in ordered], embedder.space.encoder
    embeddings = embedder.embed([content.text for content in contents], [(one.space, one.vector) for one in contents])
    return [_title(change, embedding, encoder) for change, embedding in zip(ordered, embeddings, strict=True)]


def _title(change: TitleChange, embedding: bytes, encoder: str) -> CatalogTitle:
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
        semantic=embedding,
        appended=appended,
        offset=offset,
        encoder=encoder,
        text=content.text,
        vector=content.vector,
        space=content.space,
    )


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
