"""The flow `titles` with sinks in memory, and launches for it."""

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.testing import TestingSource, run_main
from numpy.typing import NDArray

from features.text_encoders import TextEncoder
from model.state.embedding_space import EmbeddingSpace
from streaming.flows.titles import build
from streaming.kafka.source import Message
from streaming.records import Title, decode_title
from streaming.state.title_embedder import TitleEmbedder
from streaming.topics import TITLE_LAUNCHES, TITLE_WITHDRAWALS
from tests.support.features import CollectSink

NOW = 1_700_000_000_000  # ms, when the first launch was appended
TOY: dict[str, Any] = {
    "name": "Toy Story",
    "genres": ["Animation"],
    "overview": "A cowboy doll is jealous.",
    "year": 1995,
}


def launch(title: str, offset: int = 0, **fields: Any) -> Message:
    value = json.dumps({"title": title, **fields}).encode()
    return Message(TITLE_LAUNCHES, 0, offset, NOW + offset, title.encode(), value)


def withdrawal(title: str, offset: int = 0) -> Message:
    """A withdrawal that was appended with the launch of the same offset."""
    return Message(TITLE_WITHDRAWALS, 0, offset, NOW + offset, title.encode(), json.dumps({"title": title}).encode())


def encoder(name: str, width: int, vectors: Callable[[tuple[int, int]], Any] = np.ones) -> TextEncoder:
    """An encoder that gives every text the same vector."""

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        made: NDArray[np.float32] = (vectors((len(texts), width)) / width**0.5).astype(np.float32)
        made[[not text for text in texts]] = 0
        return made

    return TextEncoder(name, width, encode)


def space_of(encode: TextEncoder) -> EmbeddingSpace:
    """The space of titles without own vectors."""
    return TitleEmbedder(encode).space


def titles_in(values: Iterable[bytes | None]) -> list[Title]:
    """The titles in records of the topic `titles`."""
    return [record for value in values if isinstance(record := decode_title(value or b""), Title)]


class TitlesRun:
    """The flow with sinks in memory."""

    def __init__(self, encode: TextEncoder) -> None:
        self.titles, self.activity, self.online, self.offline, self.letters = (CollectSink() for _ in range(5))
        self.encode = encode

    def flow(
        self, source: Source[list[Message]], withdrawals: Source[list[Message]] | None = None, **settings: Any
    ) -> Dataflow:
        return build(
            launches=source,
            withdrawals=withdrawals or TestingSource([]),
            titles=self.titles,
            activity=self.activity,
            online=self.online,
            offline=self.offline,
            dead_letters=self.letters,
            encode=self.encode,
            **settings,
        )

    def written(self) -> list[Title]:
        return titles_in(record.value for record in self.titles.all())

    def reasons(self) -> list[str]:
        return [dict(record.headers)["reason"].decode() for record in self.letters.all()]


def run_flow(encode: TextEncoder, *messages: Message, batch: int = 10) -> TitlesRun:
    """The flow, which reads launches and withdrawals in this order, in polls of `batch` records of one topic."""
    launches, withdrawals = list[list[Message]](), list[list[Message]]()
    for topic, run in groupby(messages, key=lambda message: message.topic):
        of_topic = list(run)
        for start in range(0, len(of_topic), batch):
            poll = of_topic[start : start + batch]
            launches.append(poll if topic == TITLE_LAUNCHES else [])
            withdrawals.append([] if topic == TITLE_LAUNCHES else poll)
    titles = TitlesRun(encode)
    run_main(titles.flow(TestingSource(launches), TestingSource(withdrawals)))
    return titles
