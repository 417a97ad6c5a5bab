"""Conversion of activity records into the model's updates."""

from streaming.state.user_update import user_update
from tests.support.learner import activity


def test_new_events_are_in_the_order_of_the_history() -> None:
    record = activity(4, 7, 9)
    update = user_update(record, [record.new[2], record.new[0]])
    assert (update.user, list(update.titles)) == ("u", ["t4", "t7", "t9"])
    assert (list(update.new), list(update.order), list(update.recorded)) == ([0, 2], [4_000, 9_000], [0, 0])
