"""The ranker: learns a planted rule online, each part from what it will meet, and goes on after a restart as it was."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.signals.ranker import Ranker, RankerSettings
from model.signals.table import COLUMN, DENSE, SIGNALS
from tests.support.learner import RANKER, differences

torch.set_num_threads(1)
WIDTH = 1 + RANKER.hard + RANKER.easy
Record = tuple[NDArray[np.float32], NDArray[np.float32]]


def candidates(random: np.random.Generator, many: int = WIDTH) -> NDArray[np.float32]:
    return random.normal(size=(many, len(SIGNALS))).astype(np.float32)


def shares(inside: bool = True) -> NDArray[np.float32]:
    share_K = np.full(WIDTH, np.log(3), np.float32)
    share_K[0] = 0.0 if inside else -1.0
    return share_K


def planted(random: np.random.Generator, rule: str) -> Record:
    """A record whose target, in row 0, is the candidate that the rule puts first."""
    signals_KF = candidates(random)
    a, b = signals_KF[:, COLUMN["text last"]], signals_KF[:, COLUMN["gap"]]
    score_K = a * b if rule == "product" else 2 * signals_KF[:, COLUMN["near share"]]
    best = int(score_K.argmax())
    signals_KF[[0, best]] = signals_KF[[best, 0]]
    return signals_KF, shares()


def hits(ranker: Ranker, rule: str) -> float:
    """How often the rule's first is the ranker's first."""
    random = np.random.default_rng(99)
    return float(np.mean([ranker.score(planted(random, rule)[0]).argmax() == 0 for _ in range(200)]))


def taught(ranker: Ranker, records: list[Record]) -> list[float | None]:
    losses = []
    for record in records:
        ranker.remember(*record)
        losses.append(ranker.learn())
    return losses


def test_before_the_first_step_the_score_is_the_linear_one() -> None:
    ranker, signals_CF = Ranker(RANKER), candidates(np.random.default_rng(0))
    np.testing.assert_allclose(ranker.score(signals_CF), signals_CF[:, : len(DENSE)] @ ranker.weights_D, rtol=1e-5)
    assert ranker.learn() is None
    assert ranker.steps == 0
    score_HC = ranker.score(np.stack([signals_CF, signals_CF]))
    assert score_HC.shape == (2, WIDTH)


def test_the_network_learns_online_what_no_linear_score_can_say() -> None:
    random, ranker = (
        np.random.default_rng(1),
        Ranker(replace(RANKER, hidden=(24, 12), buffer=256, visits=64.0, steps=4, rate=1e-2)),
    )
    assert hits(ranker, "product") < 0.3
    taught(ranker, [planted(random, "product") for _ in range(600)])
    assert hits(ranker, "product") > 0.5


def test_the_linear_score_learns_too() -> None:
    random, ranker = np.random.default_rng(2), Ranker(replace(RANKER, rate=1e-2))
    before = float(ranker.weights_D[COLUMN["near share"]])
    losses = taught(ranker, [planted(random, "linear") for _ in range(150)])
    assert ranker.weights_D[COLUMN["near share"]] > before + 0.5
    assert np.mean([loss or 0 for loss in losses[-20:]]) < np.mean([loss or 0 for loss in losses[:20]])
    assert hits(ranker, "linear") > 0.6


def test_a_target_from_outside_the_shortlist_teaches_the_linear_score_only() -> None:
    random, ranker = np.random.default_rng(3), Ranker(RANKER)
    before, linear = [p.detach().clone() for p in ranker.live.parameters()], ranker.weights_D.copy()
    taught(ranker, [(planted(random, "linear")[0], shares(inside=False)) for _ in range(20)])
    for old, p in zip(before, ranker.live.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), old, rtol=1e-3, atol=0)  # weight decay alone
    assert abs(ranker.weights_D - linear).max() > 0.01
    taught(ranker, [planted(random, "linear")])
    assert any(not torch.allclose(p, old, rtol=1e-2) for old, p in zip(before, ranker.live.parameters(), strict=True))


def test_entries_that_are_not_there_teach_nothing() -> None:
    random = np.random.default_rng(4)
    signals_KF, share_K = planted(random, "linear")
    share_K[3:] = -np.inf
    other_KF = signals_KF.copy()
    other_KF[RANKER.hard + 1 :] = 50.0  # beyond what the running mean is taken over
    rankers = [Ranker(RANKER), Ranker(RANKER)]
    for ranker, record in zip(rankers, (signals_KF, other_KF), strict=True):
        taught(ranker, [(record, share_K)] * 5)
    assert (rankers[0].weights_D == rankers[1].weights_D).all()


def test_hidden_signals_do_not_reach_the_network() -> None:
    random = np.random.default_rng(5)
    blind, seeing = Ranker(RANKER, without=("backbone lead", "gap")), Ranker(RANKER)
    for ranker in (blind, seeing):
        taught(ranker, [planted(np.random.default_rng(6), "product") for _ in range(30)])
    signals_CF = candidates(random)
    changed_CF = signals_CF.copy()
    changed_CF[:, [COLUMN["backbone lead"], COLUMN["gap"]]] += 3
    assert (blind.score(signals_CF) == blind.score(changed_CF)).all()
    assert (seeing.score(signals_CF) != seeing.score(changed_CF)).any()


def test_steps_follow_the_records_however_they_are_cut() -> None:
    settings = replace(RANKER, visits=4.0, steps=99)
    steps: dict[int, dict[int, int]] = {}
    for a_batch in (1, 7, 64):
        ranker, steps[a_batch] = Ranker(settings), {}
        for n in range(1, 449):
            ranker.remember(*planted(np.random.default_rng(n), "linear"))
            if n % a_batch == 0:
                ranker.learn()
                steps[a_batch][n] = ranker.steps
    for a_batch in (7, 64):
        assert steps[a_batch] == {n: steps[1][n] for n in steps[a_batch]}
    assert steps[1][448] * settings.batch == 4 * 448


def test_a_micro_batch_takes_so_many_steps_at_the_most() -> None:
    ranker = Ranker(replace(RANKER, visits=4.0, steps=5))
    for n in range(200):
        ranker.remember(*planted(np.random.default_rng(n), "linear"))
    ranker.learn()
    assert ranker.steps == 5


def test_the_buffer_is_a_ring_and_each_step_takes_the_newest_records() -> None:
    ranker = Ranker(replace(RANKER, buffer=8))
    for n in range(11):
        ranker.remember(np.full((WIDTH, len(SIGNALS)), n, np.float16), shares())
    assert ranker.signals_NKF[:, 0, 0].tolist() == [8, 9, 10, 3, 4, 5, 6, 7]
    assert len(ranker.training_state()["log_share_NK"]) == 8


def test_scoring_changes_nothing() -> None:
    ranker = Ranker(RANKER)
    taught(ranker, [planted(np.random.default_rng(7), "linear") for _ in range(10)])
    before = {**ranker.served_state(), **ranker.training_state()}
    ranker.score(candidates(np.random.default_rng(8)))
    assert differences({**ranker.served_state(), **ranker.training_state()}, before) == []


def test_making_one_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    first, second = Ranker(RANKER, seed=1), Ranker(RANKER, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert differences(first.served_state(), second.served_state()) == []
    assert differences(first.served_state(), Ranker(RANKER, seed=2).served_state()) != []


@pytest.mark.parametrize("records", [5, 90])  # before the ring is full, and after
def test_a_restart_changes_nothing_that_follows(records: int) -> None:
    random, one, other = np.random.default_rng(9), Ranker(RANKER, seed=4), Ranker(RANKER, seed=4)
    taught(one, [planted(random, "linear") for _ in range(records)])
    served, training = one.served_state(), one.training_state()
    more = [planted(random, "linear") for _ in range(20)]
    losses = taught(one, more)
    other.load_served(served)
    other.load_training(training)
    assert taught(other, more) == losses
    assert differences(other.served_state(), one.served_state()) == []
    assert differences(other.training_state(), one.training_state()) == []


def test_settings_of_another_size_are_taken() -> None:
    ranker = Ranker(RankerSettings(hard=2, easy=1, hidden=(5, 3), buffer=4, batch=3, visits=1e6, steps=1))
    ranker.remember(candidates(np.random.default_rng(10), 4), np.zeros(4, np.float32))
    assert np.isfinite(ranker.learn() or np.nan)
