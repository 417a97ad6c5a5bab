"""The space of the text embeddings in the topics: which encoder wrote them, and the record that announces another one.

Vectors of different encoders cannot be compared. So all titles are embedded by one encoder, and only `premiere reembed`
changes it: it writes a TextSpace, then every title again. The newest record of the topic `titles` tells the encoder. At
each start, `titles` writes a TextSpace to the learner log; the learner takes the width from there, and ignores a
repeated one.
"""

from collections.abc import Mapping
from typing import Final

from confluent_kafka import Consumer

from model.state.embedding_space import EmbeddingSpace
from streaming.errors import StreamError
from streaming.kafka.client import consumer_config, offset_range, topic_name
from streaming.kafka.sink import KafkaSink, Outgoing
from streaming.kafka.source import read_all
from streaming.records import DECODE_ERRORS, CatalogTitle, TextSpace, decode_catalog_title, to_msgpack
from streaming.topics import ACTIVITY, TITLES

SPACE_KEY: Final = b"\0text-space"  # of a TextSpace in `titles`; compaction keeps the newest one
FIRST_READ: Final = 16  # records that are read to find the newest one; some offsets hold no record
GROUP: Final = "titles"


class OtherEncoderError(StreamError):
    """The titles were embedded by another encoder. The message names the remedy."""


def newest_title_record(config: Mapping[str, str]) -> CatalogTitle | TextSpace | None:
    """The newest valid record of the topic `titles`; None if there is none. Raises StreamError."""
    consumer, name = Consumer(consumer_config(config, GROUP)), topic_name(config, TITLES)
    try:
        first, end = offset_range(consumer, name, 0)
    finally:
        consumer.close()
    records, start = FIRST_READ, end
    while start > first:
        start, newest = max(first, end - records), None
        for message in read_all(config, TITLES, {0: start}):
            try:
                newest = decode_catalog_title(message.value or b"")
            except DECODE_ERRORS:
                continue
        if newest is not None:
            return newest
        records *= FIRST_READ
    return None


def check_encoder(newest: CatalogTitle | TextSpace | None, space: EmbeddingSpace) -> None:
    """Check that the titles in the topic `titles`, whose newest record is given, have embeddings of this space.

    Raises OtherEncoderError.
    """
    if newest is None:
        return
    if newest.reembedded if isinstance(newest, CatalogTitle) else not newest.complete:
        raise OtherEncoderError(
            f"A change of the text encoder to {newest.encoder} was interrupted: run `premiere reembed` to complete it."
        )
    if not space.contains(newest.encoder, newest.width or space.width):
        raise OtherEncoderError(
            f"The titles are embedded by {newest.encoder or 'another encoder'} (width {newest.width}), the settings "
            f"name {space.encoder} (width {space.width}): run `premiere reembed` to embed them again, or set "
            "text_encoder and title_vectors back."
        )


def space_records(space: EmbeddingSpace, complete: bool = True) -> dict[str, Outgoing]:
    """The records that announce the encoder, by topic."""
    value = to_msgpack(TextSpace(encoder=space.encoder, width=space.width, complete=complete))
    return {topic: Outgoing(topic, SPACE_KEY, value) for topic in (TITLES, ACTIVITY)}


def start_text_space(config: Mapping[str, str], space: EmbeddingSpace, sink: KafkaSink) -> None:
    """Check the encoder, and announce it in the learner log, and in `titles` before the first title.

    Raises OtherEncoderError, StreamError.
    """
    newest = newest_title_record(config)
    check_encoder(newest, space)
    records = space_records(space)
    write_records(sink, [records[ACTIVITY]] if newest is not None else [records[TITLES], records[ACTIVITY]])


def write_records(sink: KafkaSink, records: list[Outgoing]) -> None:
    """Write records and wait until they are delivered. Raises StreamError."""
    writer = sink.build_part("titles.text_space", "000", None)
    try:
        writer.write_batch([records])
        writer.snapshot()
    finally:
        writer.close()
