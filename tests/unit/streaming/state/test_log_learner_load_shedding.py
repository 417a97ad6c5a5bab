"""Under load the learner skips experience replay and ranks only a sample of the events, but it learns every event."""

from dataclasses import replace

import pytest
import torch

from model.learner import Learner
from streaming.state.log_learner import LogLearner
from streaming.state.log_settings import LogSettings
from tests.support.learner import SETTINGS, SMALL_STATE, LogBuilder, activity

torch.set_num_threads(1)
SETTINGS_AT_LOW_RATE = LogSettings(
    min_batch_events=4, linger_ms=500, max_batch_records=100, checkpoint_ms=3_000, checkpoint_batches=7, dedup_window=64
)


def new(settings: LogSettings) -> LogLearner:
    state = replace(SMALL_STATE, min_users_before_launch=1)  # titles are learned without a launch
    return LogLearner(Learner(replace(SETTINGS, stream_state=state)), settings)


def test_event_rate_above_capacity_shrinks_experience_replay() -> None:
    log, learner = LogBuilder(), new(replace(SETTINGS_AT_LOW_RATE, capacity=3.5))
    ratios, rates = [], []
    for number, later in enumerate([2_000] * 5 + [10] * 40 + [4_000] * 5):
        log.write(activity(*range(4 * number, 4 * number + 4)), later)
        learner.feed(log.messages[-1])
        ratios.append(learner.replay_ratio)
        rates.append(learner.event_rate.per_second())
    assert ratios[3] == 1.0
    assert rates[3] == 4 * 4 / 6.0
    assert ratios[40] == SETTINGS_AT_LOW_RATE.min_replay_ratio
    assert ratios[-1] == 1.0  # the rate is measured over ten seconds


def test_above_full_eval_rate_a_sample_is_ranked_and_all_events_learned() -> None:
    log, learner = LogBuilder(), new(replace(SETTINGS_AT_LOW_RATE, full_eval_rate=10.0, max_batch_events=30))
    batches, scored = [], []
    for number, later in enumerate([2_000] * 5 + [10] * 60 + [4_000] * 5):
        log.write(activity(*range(4 * number, 4 * number + 4)), later)
        learner.feed(log.messages[-1])
        batches.append(learner.batch_events)
        scored.append(learner.evaluation.rankings["full"].scored()["all"])
    assert set(batches[:5]) == {4}
    assert batches[60] == 11  # 28 events/s, of which ten are ranked: 4 / (10 / 28)
    assert batches[-1] == 4
    assert learner.eval_ratio == 1.0
    assert scored[4] == 20
    assert 0 < scored[64] - scored[9] < 0.7 * 4 * 55
    assert learner.learned == 4 * 70


def test_rate_takes_no_more_memory_if_log_time_stands_still() -> None:
    log, learner = LogBuilder(), new(SETTINGS_AT_LOW_RATE)
    for number in range(60):
        log.write(activity(number), later=0)
        learner.feed(log.messages[-1])
    assert list(learner.event_rate.recent) == [(learner.clock.now, learner.learned)]


@pytest.mark.parametrize("step", [-3_600_000, 3_600_000])
def test_clock_step_of_the_host_changes_neither_load_level_nor_checkpoints(step: int) -> None:
    settings = LogSettings(min_batch_events=4, linger_ms=500, checkpoint_ms=5_000, checkpoint_batches=10**6)
    log, learner = LogBuilder(), new(settings)
    levels, due = set(), []
    for number in range(120):  # 50 events/s
        if number == 60:
            log.record_time += step
        log.write(activity(*range(10 * number, 10 * number + 10)), 200)
        due += [number] * learner.feed(log.messages[-1])
        levels.add((learner.batch_events, learner.replay_ratio, learner.eval_ratio))
    assert levels == {(4, 1.0, 1.0)}
    assert learner.event_rate.per_second() < 60
    assert len([number for number in due if number > 60]) >= 2
