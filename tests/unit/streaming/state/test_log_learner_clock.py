"""The learner and clocks: log time that stands still, and event times ahead of the log."""

import math

import pytest
from msgspec import structs

from model.learner import Learner
from streaming.records import Activity, NewEvent
from streaming.state.log_learner import LogLearner
from streaming.state.log_settings import LogSettings
from tests.support.learner import PLAY, SETTINGS, LogBuilder, activity
from tests.support.statics import log_popularity

DAY_MS = 86_400_000


def new() -> LogLearner:
    return LogLearner(Learner(SETTINGS), LogSettings(max_batch_records=4))


def test_number_of_recent_rates_is_bounded_while_log_time_stands_still() -> None:
    log, learner = LogBuilder(), new()
    for offset in range(40):
        log.write(activity(offset, user=f"u{offset}"), later=0)
    for message in log.messages:
        learner.feed(message)
    assert list(learner.event_rate.recent) == [(0, 40)]


@pytest.mark.parametrize("appended_ahead", [False, True])  # True: a broker that keeps the producer's record time
def test_event_ahead_of_the_log_does_not_age_titles(appended_ahead: bool) -> None:
    log, learner = LogBuilder(), new()
    log.launch()
    title = f"t{log.stream.launches - 1}"
    for offset in range(8):
        now = log.record_time
        one = structs.replace(activity(offset, user=f"u{offset}"), titles=[title], times=[now])
        log.write(structs.replace(one, new=[NewEvent(0, 0, offset, now)]))
    far = log.record_time + 365 * DAY_MS
    ahead = NewEvent(0, 0, 8, far if appended_ahead else log.record_time)
    log.write(Activity(user="fast", count=1, titles=[title], times=[far], actions=[PLAY], new=[ahead]))
    for offset in range(9, 16):
        log.write(activity(offset, user=f"u{offset}"))
    for message in log.messages:
        learner.feed(message)
    state = learner.learner.stream_state
    hourly = log_popularity(state.counters, len(state.catalog))[state.catalog.rows[title], 0]
    assert state.counters.now_Z[0] <= log.record_time
    assert hourly == pytest.approx(math.log1p(9), rel=0.02)
