"""The open micro-batch."""

from streaming.records import UserErasure
from streaming.state.open_batch import OpenBatch
from tests.support.learner import activity


def test_open_batch_counts_new_events_from_its_first_record_on() -> None:
    batch, erasure = OpenBatch(), UserErasure(user="b", partition=0, offset=0, appended=0)
    assert not batch
    for now, record in ((5, activity(1, 2, user="a")), (6, erasure), (9, activity(3))):
        batch.add(record, now)
    assert (len(batch), batch.opened_at, batch.new_events, batch.erased_users) == (3, 5, 3, {"b"})
