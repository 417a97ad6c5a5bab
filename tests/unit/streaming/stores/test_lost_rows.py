"""After a loss each state is asked for its row, a bounded number at a time; another loss starts anew."""

import threading
import time
from datetime import timedelta

import pytest

from streaming.stores.lost_rows import LostRows, Restore, RestoreSource

KEYS = [f"k{number}" for number in range(7)]


def asked(batch: list[tuple[str, list[Restore]]]) -> list[str]:
    return [key for key, _ in batch]


def test_keys_are_asked_in_bounded_batches_once_per_loss() -> None:
    lost = LostRows(12, threading.Event(), settle_s=0)  # 3 per quarter of a second
    part = RestoreSource(lost, lambda: list(KEYS)).build("restores", 0, 1)
    assert part.next_batch() == []
    lost.losses = 1
    assert [asked(part.next_batch()) for _ in range(4)] == [KEYS[:3], KEYS[3:6], KEYS[6:], []]
    assert (part.next_batch(), lost.restored) == ([], 1)


def test_loss_during_a_restore_starts_anew() -> None:
    lost = LostRows(12, threading.Event(), settle_s=0)
    part = RestoreSource(lost, lambda: list(KEYS)).build("restores", 0, 1)
    lost.losses = 1
    part.next_batch()
    lost.losses = 2
    assert asked(part.next_batch()) == KEYS[:3]
    assert lost.restored == 0


def test_restore_is_complete_only_after_its_rows_had_time_to_arrive() -> None:
    lost = LostRows(1_000, threading.Event(), settle_s=60)
    part = RestoreSource(lost, lambda: list(KEYS)).build("restores", 0, 1)
    lost.losses = 1
    assert asked(part.next_batch()) == KEYS
    assert (part.next_batch(), lost.restored) == ([], 0)


def test_expired_rows_are_left_out() -> None:
    lost = LostRows(1_000, threading.Event(), ttl=timedelta(days=90))
    part = RestoreSource(lost, lambda: KEYS[:1]).build("restores", 0, 1)
    lost.losses = 1
    ((_, (restore,)),) = part.next_batch()
    assert restore.since == pytest.approx((time.time() - 90 * 86_400) * 1000, abs=60_000)


def test_input_ends_when_the_flow_stops() -> None:
    stop = threading.Event()
    part = RestoreSource(LostRows(1, stop), lambda: KEYS).build("restores", 0, 1)
    stop.set()
    with pytest.raises(StopIteration):
        part.next_batch()
