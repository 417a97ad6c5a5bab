"""What the learner gives up when the log is faster than it: replay, then the rank of every event; never an event."""

from dataclasses import replace

import torch

from model.learner import Learner
from streaming.state.log_learner import LogLearner, LogSettings
from tests.support.learner import SETTINGS, Log, activity

torch.set_num_threads(1)
SLOW = LogSettings(batch=4, linger=500, titles=100, checkpoint=3_000, checkpoint_batches=7, window=64)


def new(settings: LogSettings) -> LogLearner:
    return LogLearner(Learner(SETTINGS), settings)


def test_far_more_events_than_the_capacity_shrink_the_replay_to_its_least() -> None:
    log, learner = Log(), new(replace(SLOW, capacity=3.5))
    replays, rates = [], []
    for number, later in enumerate([2_000] * 5 + [10] * 40 + [4_000] * 5):
        log.write(activity(*range(4 * number, 4 * number + 4)), later)
        learner.feed(log.messages[-1])
        replays.append(learner.replay)
        rates.append(learner.rate())
    assert replays[3] == 1.0
    assert rates[3] == 4 * 4 / 6.0
    assert replays[40] == SLOW.least_replay
    assert replays[-1] == 1.0  # forgotten after ten seconds


def test_beyond_its_rate_a_fair_sample_is_ranked_and_micro_batches_grow_while_all_is_learned() -> None:
    log, learner = Log(), new(replace(SLOW, ranked=10.0, most_batch=30))
    batches, scored = [], []
    for number, later in enumerate([2_000] * 5 + [10] * 60 + [4_000] * 5):
        log.write(activity(*range(4 * number, 4 * number + 4)), later)
        learner.feed(log.messages[-1])
        batches.append(learner.batch)
        scored.append(learner.rankings["full"].scored()["all"])
    assert set(batches[:5]) == {4}
    assert batches[60] == 11  # 28 events/s of which ten are to be ranked: 4 / (10 / 28)
    assert batches[-1] == 4
    assert learner.ranked == 1.0
    assert scored[4] == 20
    assert 0 < scored[64] - scored[9] < 0.7 * 4 * 55
    assert learner.learned == 4 * 70


def test_what_is_given_up_at_a_rate_follows_from_the_settings() -> None:
    settings = LogSettings(batch=64, most_batch=512, capacity=150.0, least_replay=0.2, ranked=200.0)
    assert settings.pace(0) == settings.pace(150) == (64, 1.0, 1.0)
    assert settings.pace(200) == (64, 0.75, 1.0)
    assert settings.pace(1_000) == (320, 0.2, 0.2)
    assert settings.pace(10_000) == (512, 0.2, 0.02)
