"""Log time ignores clock steps of the hosts that write the learner log."""

import pytest

from streaming.records import Activity, LogRecord, NewEvent, Tick, Title
from streaming.state.log_clock import MAX_STEP_MS, LogClock, recorded_until

HOUR_MS = 3_600_000
NOON = 1_700_000_000_000
TICK = Tick(ts=0)
TITLE = Title(
    title="t", name="", genres=[], year=None, released=None, launched=0, stamp=0, withdrawn=False, semantic=b"",
    appended=0, offset=0,
)  # fmt: skip


def log_times(*records: tuple[LogRecord, int]) -> list[int]:
    clock, times = LogClock(), []
    for record, appended in records:
        clock = clock.after(record, appended)
        times.append(clock.now)
    return times


def test_log_time_follows_record_times() -> None:
    assert log_times(*((TICK, NOON + ms) for ms in (0, 5, 500, 9_000))) == [0, 5, 500, 9_000]


@pytest.mark.parametrize("step", [-HOUR_MS, -100 * HOUR_MS])
def test_log_time_continues_after_a_clock_step_back(step: int) -> None:
    assert log_times(*((TICK, ms) for ms in (NOON, NOON + 100, NOON + step, NOON + step + 70))) == [0, 100, 100, 170]


def test_clock_step_forward_counts_as_the_largest_step() -> None:
    times = log_times(*((TICK, ms) for ms in (NOON, NOON + HOUR_MS, NOON + HOUR_MS + 30, NOON + 40, NOON + 90)))
    assert times == [0, MAX_STEP_MS, MAX_STEP_MS + 30, MAX_STEP_MS + 30, MAX_STEP_MS + 80]


def test_log_time_stands_still_until_a_small_step_back_is_over() -> None:
    assert log_times(*((TICK, NOON + ms) for ms in (9_000, 4_000, 8_000, 9_500))) == [0, 0, 0, 500]


def test_hosts_an_hour_apart_do_not_speed_up_log_time() -> None:
    records = [(TITLE if n % 2 else TICK, NOON + n + HOUR_MS * (n % 2)) for n in range(100)]
    assert log_times(*records)[-1] <= 99


def test_restored_clock_continues_alike() -> None:
    clock = LogClock().after(TICK, NOON).after(TITLE, NOON + HOUR_MS).after(TICK, NOON - HOUR_MS)
    assert LogClock.restored(list(clock)) == clock


def test_record_time_of_an_event_is_at_most_that_of_its_activity() -> None:
    new = [NewEvent(0, 0, 1, NOON - 5), NewEvent(1, 0, 2, NOON + 100 * HOUR_MS)]
    activity = Activity(user="u", count=2, titles=["a", "b"], times=[1, 2], actions=[3, 3], new=new)
    assert [event.appended for event in recorded_until(activity, NOON).new] == [NOON - 5, NOON]
    assert recorded_until(activity, NOON + 200 * HOUR_MS) is activity
