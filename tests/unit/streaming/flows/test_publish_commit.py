"""The flow `publish` commits a position of the learner log only after the lists up to it are written."""

from typing import Any

from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from streaming.flows.publish import KINDS, build
from streaming.kafka.commit_position import CommitPosition
from streaming.records import to_msgpack
from streaming.state.publish_settings import PublishSettings
from streaming.state.publisher import Publisher
from streaming.stores.redis_lists import Prediction, RedisWrite
from tests.support.publish import NOW, message, polls, recommender, world

Writes = tuple[str, list[RedisWrite]]


class RecordingSink(DynamicSink[Writes], StatelessSinkPartition[Writes]):
    """Records each list of a user who acted, with the position that is committed when it arrives here."""

    def __init__(self, position: CommitPosition) -> None:
        self.position = position
        self.written: list[tuple[int, int]] = []  # offset of the newest event that the list includes, position

    def build(self, step_id: str, worker_index: int, worker_count: int) -> "RecordingSink":
        return self

    def write_batch(self, items: list[Writes]) -> None:
        predictions = [one for _, writes in items for one in writes if isinstance(one, Prediction)]
        position = self.position.get(0) or 0
        self.written += [(one.revision[1], position) for one in predictions if one.cause == "event"]


def test_position_is_never_ahead_of_the_written_lists() -> None:
    publisher, positions = Publisher(PublishSettings(event_batch=2)), {kind: CommitPosition() for kind in KINDS}
    publisher.serve(0, recommender(), [])
    activities = world().activities  # the events have the offsets of their activities
    sink: Any = RecordingSink(positions["activity"])
    records = [message("activity", offset, to_msgpack(one)) for offset, one in enumerate(activities)]
    idle: list[list[Any]] = [[] for _ in world().newest()]  # each lets the flow do a batch of work
    flow = build(
        activity=polls(records, *idle),
        titles=polls([]),
        versions=polls([]),
        lists=sink,
        publisher=publisher,
        load=lambda url, ahead: recommender(),
        clock=lambda: NOW / 1000,
        commit_positions=positions,
    )
    run_main(flow)
    assert len(sink.written) == len(world().newest()) > 2
    assert all(position <= offset for offset, position in sink.written)
    assert sink.written[-1][1] > 0  # it advances with the lists that are written
