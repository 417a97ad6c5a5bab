"""The flow `titles` with sinks in memory, and launches for it."""

import json
from itertools import groupby
from typing import Any

from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.testing import TestingSource, run_main

from features.text_encoders import Encoder
from streaming.flows.titles import build
from streaming.kafka.source import Message
from streaming.records import Title, decode_title
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


class TitlesRun:
    """The flow with sinks in memory."""

    def __init__(self, encode: Encoder) -> None:
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
        return [decode_title(record.value) for record in self.titles.all()]

    def reasons(self) -> list[str]:
        return [dict(record.headers)["reason"].decode() for record in self.letters.all()]


def run_flow(encode: Encoder, *messages: Message, batch: int = 10) -> TitlesRun:
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
