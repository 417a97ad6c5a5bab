"""The flow `features` with sinks in memory, and messages for it."""

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.testing import TestingSource, run_main

from streaming.flows.features import build
from streaming.kafka.source import Message
from streaming.records import Activity, LogRecord, decode_log
from streaming.state.user_history import UserRow
from streaming.topics import ERASURE_REQUESTS, USER_EVENTS

NOW = 1_700_000_000_000  # ms


class _CollectPartition(StatefulSinkPartition[list[Any], None]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def write_batch(self, values: list[list[Any]]) -> None:
        self.items += values

    def snapshot(self) -> None:
        return None


class CollectSink(FixedPartitionedSink[list[Any], None]):
    """Keeps all items, at least once: a crash discards none."""

    def __init__(self, parts: int = 1) -> None:
        self.items: dict[str, list[Any]] = {str(part): [] for part in range(parts)}

    def list_parts(self) -> list[str]:
        return list(self.items)

    def part_fn(self, item_key: str) -> int:
        return int(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _CollectPartition:
        return _CollectPartition(self.items[for_part])

    def all(self) -> list[Any]:
        return [element for part in self.items.values() for item in part for element in item]


class FeaturesRun:
    """The flow with sinks in memory."""

    def __init__(self, shards: int = 1) -> None:
        self.activity, self.letters = CollectSink(), CollectSink()
        self.online, self.offline, self.erasures = (CollectSink(shards) for _ in range(3))
        self.shards = shards

    def flow(
        self, source: Source[list[Message]], requests: Source[list[Message]] | None = None, **settings: Any
    ) -> Dataflow:
        return build(
            events=source,
            requests=requests or TestingSource([]),
            activity=self.activity,
            online=self.online,
            offline=self.offline,
            erasures=self.erasures,
            dead_letters=self.letters,
            offline_shards=self.shards,
            **settings,
        )

    def log(self) -> list[LogRecord]:
        return [decode_log(record.value) for record in self.activity.all()]

    def activities(self) -> list[Activity]:
        return [record for record in self.log() if isinstance(record, Activity)]

    def rows(self) -> dict[tuple[int, int], UserRow]:
        """Offline rows by the position of their event."""
        return {(row["partition"], row["offset"]): row for row in self.offline.all()}


def event(user: str, title: str, ts: int, offset: int, partition: int = 0, **more: Any) -> Message:
    value = json.dumps({"user": user, "title": title, "ts": ts, **more}).encode()
    return Message(USER_EVENTS, partition, offset, NOW + offset, user.encode(), value)


def erasure_request(user: str, offset: int, partition: int = 0, **more: Any) -> Message:
    """A request that was appended with the event of the same offset."""
    value = json.dumps({"user": user, **more}).encode()
    return Message(ERASURE_REQUESTS, partition, offset, NOW + offset, user.encode(), value)


def polls(messages: Sequence[Message], size: int) -> list[list[Message]]:
    return [list(messages[start : start + size]) for start in range(0, len(messages), size)]


def run_flow(
    source: Iterable[Any], shards: int = 1, requests: Iterable[list[Message]] = (), **settings: Any
) -> FeaturesRun:
    run = FeaturesRun(shards)
    run_main(run.flow(TestingSource(list(source)), TestingSource(list(requests)), **settings))
    return run


def run_in_order(records: Iterable[Message], size: int = 1, **settings: Any) -> FeaturesRun:
    """The flow, which reads events and erasure requests in this order, in polls of `size` records of one topic."""
    runs = (list(run) for _, run in groupby(records, key=lambda message: message.topic))
    events, requests = list[list[Message]](), list[list[Message]]()
    for poll in (poll for run in runs for poll in polls(run, size)):
        is_event = poll[0].topic == USER_EVENTS
        events.append(poll if is_event else [])  # an empty poll is a tick
        requests.append([] if is_event else poll)
    return run_flow(events, requests=requests, **settings)
