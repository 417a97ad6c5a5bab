"""The gate passes a healthy model and stops a ruined one, and its decisions survive a restart."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import pytest
import torch

from model.learner import Learner
from model.metrics.drift import DriftSettings
from model.metrics.ranking import PrequentialMetrics
from model.state.stream_state import UserUpdate
from streaming.state.live_evaluation import LIVE_BASELINES, LIVE_VARIANTS
from streaming.state.log_settings import GateSettings
from streaming.state.version_gate import GoodPoint, Verdict, VersionGate
from tests.support.learner import SETTINGS, RandomStream

torch.set_num_threads(1)
GATE: Final = GateSettings(probes=16, min_probes=2, drift=DriftSettings(block=8, warmup_blocks=4))
MINUTE_MS: Final = 60_000


class Run:
    """A learner on a random stream, checked after each batch."""

    def __init__(self, settings: GateSettings = GATE) -> None:
        self.learner, self.stream = Learner(SETTINGS), RandomStream(seed=5)
        self.rankings = {name: PrequentialMetrics() for name in LIVE_VARIANTS}
        self.gate = VersionGate(self.learner, self.rankings, settings)
        self.step = self.now = 0

    def batch(self, full: float = 2.0, others: float = 4.0) -> Verdict:
        """Learn a batch, add 16 events of these ranks, and check."""
        batch = self.stream.batch()
        self.learner.observe(batch)
        self.gate.add_updates([item for item in batch if isinstance(item, UserUpdate)])
        for _ in range(16):
            ranks = {
                "full": full * float(self.stream.random.uniform(0.5, 1.5)),
                **dict.fromkeys(LIVE_BASELINES, others),
            }
            for name, ranking in self.rankings.items():
                ranking.add(max(ranks[name], 1.0), 20, 20)
            self.gate.add_rank(max(ranks["full"], 1.0))
        return self.check()

    def check(self) -> Verdict:
        self.step, self.now = self.step + 1, self.now + MINUTE_MS
        return self.gate.check(GoodPoint(self.step * 100, self.step), self.now)


def healthy(settings: GateSettings = GATE, batches: int = 20) -> Run:
    run = Run(settings)
    assert [run.batch().problems for _ in range(batches)] == [()] * batches
    assert run.gate.last_good is not None
    return run


def ruin_ranker_moments(learner: Learner) -> None:
    learner.served_pipeline.ranker.mean_F[3] = np.nan


def ruin_embeddings(learner: Learner) -> None:
    sequence = learner.served_pipeline.sequence
    assert sequence is not None
    sequence.optimizers.rows.table_VI[0, 0] = np.inf


@pytest.mark.parametrize("ruin", [ruin_ranker_moments, ruin_embeddings])
def test_state_that_is_not_finite_fails(ruin: Callable[[Learner], None]) -> None:
    run = healthy()
    ruin(run.learner)
    assert run.check().problems == ("a weight is not finite",)


def test_model_below_the_best_baseline_fails() -> None:
    run = Run(replace(GATE, min_events=100))
    verdicts = [run.batch(full=8.0, others=2.0) for _ in range(10)]
    assert verdicts[0].passed  # too few events for a verdict
    assert verdicts[-1].problems == ("the MRR is below that of the best baseline",)


def test_model_that_scores_in_reverse_has_other_lists() -> None:
    run = healthy()
    with torch.no_grad():
        run.learner.served_pipeline.ranker.linear_F.mul_(-100)
    assert run.check().problems == ("the lists no longer resemble those of the last version",)


def test_model_that_ranks_the_probes_worse_than_the_last_version_fails() -> None:
    run = healthy()
    run.gate.passed_results = [result._replace(rank=1.0) for result in run.gate.passed_results]
    assert run.check().problems == ("the probes are ranked worse than by the last version",)


def test_same_title_on_top_of_most_lists_at_once_fails() -> None:
    run = healthy()
    results = run.gate.passed_results
    run.gate.passed_results = [result._replace(top=[f"first{n}", *result.top]) for n, result in enumerate(results)]
    ranker = run.learner.served_pipeline.ranker
    with torch.no_grad():  # only popularity counts
        ranker.steps = 0
        ranker.linear_F.mul_(0)[0] = 1
    assert "too many lists begin with the same title" in run.check().problems


def test_mrr_that_falls_fails_and_the_trusted_version_is_served_again() -> None:
    run = healthy()
    verdicts: list[Verdict] = []
    while not verdicts or verdicts[-1].passed:
        verdicts.append(run.batch(full=4.5))
        assert len(verdicts) < 30
    last_good, last = run.gate.last_good, verdicts[-1]
    assert last_good is not None
    assert last.problems == ("the prequential MRR has fallen",)
    assert last.rollback_to == last_good
    assert last_good.step <= 22  # from before the fall could be noticed
    assert run.batch(full=4.5).rollback_to is None  # announced once


def test_learner_returns_after_three_failures_then_after_six() -> None:
    run = healthy()
    ruin_ranker_moments(run.learner)
    verdicts = [run.check() for _ in range(3)]
    assert [verdict.return_to for verdict in verdicts] == [None, None, run.gate.last_good]
    run.gate.returned(run.gate.outcome())
    assert [run.check().return_to is not None for _ in range(6)] == [False] * 5 + [True]


def test_passed_check_ends_the_failures() -> None:
    run = healthy()
    mean_F = run.learner.served_pipeline.ranker.mean_F.clone()
    ruin_ranker_moments(run.learner)
    assert [run.check().passed for _ in range(2)] == [False, False]
    run.learner.served_pipeline.ranker.mean_F[:] = mean_F
    assert run.check().passed
    assert (run.gate.failures, run.gate.failing_since) == (0, None)


def test_nothing_is_trusted_and_no_return_is_demanded_from_the_start() -> None:
    run = Run()
    ruin_ranker_moments(run.learner)
    verdicts = [run.check() for _ in range(5)]
    assert {(verdict.passed, verdict.rollback_to, verdict.return_to) for verdict in verdicts} == {(False, None, None)}


def test_lasting_fall_becomes_the_norm_after_the_accepted_time() -> None:
    run = healthy(replace(GATE, accept_ms=40 * MINUTE_MS))
    problems = [run.batch(full=4.5).problems for _ in range(90)]
    failed = [number for number, found in enumerate(problems) if "the prequential MRR has fallen" in found]
    assert failed == list(range(failed[0], failed[-1] + 1))
    assert 30 < len(failed) < 50


def test_gate_can_be_switched_off() -> None:
    run = Run(replace(GATE, enabled=False))
    ruin_ranker_moments(run.learner)
    assert run.batch(full=50.0).passed


def test_erased_user_leaves_the_probes() -> None:
    run = healthy()
    for user in [probe.user for probe in run.gate.probes]:
        run.gate.erase_user(user)
    assert (run.gate.probes, run.gate.passed_results) == ([], [])
    for user in list(run.gate.recent):
        run.gate.erase_user(user)
    assert not run.gate.recent
    assert run.batch().passed


def test_restored_gate_decides_the_same() -> None:
    run, other = healthy(batches=12), Run()
    other.learner.load_state_dict(run.learner.state_dict())
    other.gate.load_state_dict(run.gate.state_dict())
    for name, ranking in other.rankings.items():
        ranking.load_state_dict(run.rankings[name].state_dict())
    other.stream, other.step, other.now = run.stream, run.step, run.now
    assert other.gate.state_dict() == run.gate.state_dict()
    first, second = run.check(), other.check()
    assert (first, run.gate.state_dict()) == (second, other.gate.state_dict())
