"""The ranking pipeline: frozen pipelines, delayed requests, training examples, and restored states."""

from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.learner import Learner
from model.pipeline import PreparedRequest, RankingPipeline, RankingRequest, RankResult, new_pipeline
from model.signals import candidates
from model.signals.inputs import user_query
from model.signals.snapshot import CatalogSnapshot, take_snapshot
from model.state.stream_state import History
from tests.support.learner import PLAY, RANKER, SETTINGS, RandomStream, state_differences, update

torch.set_num_threads(1)
FIRST_UNIFORM: Final = 1 + RANKER.hard_negatives  # index in a training example: target, hard negatives, uniform ones


class Setup(NamedTuple):
    """A trained learner, and two requests of one user: a current one, and one delayed by two events."""

    learner: Learner
    pipeline: RankingPipeline
    snapshot: CatalogSnapshot
    history: History
    requests: list[RankingRequest]


def trained_setup() -> Setup:
    stream, learner = RandomStream(seed=8), Learner(SETTINGS)
    for batch in stream.batches(12):
        learner.observe(batch)
    catalog, last = learner.stream_state.catalog, update("u1", ["t1", "t2", "t3", "t4"], 1)
    history = History("u1", catalog.rows_of(last.titles), np.array(last.times), np.array(last.actions))
    target = int(np.flatnonzero(catalog.candidate_V)[0])
    requests = [
        RankingRequest(history.before(3), last.times[3], target, PLAY, 0, 3, 0),
        RankingRequest(history.before(1), last.times[0], target, PLAY, 0, 3, 2),
    ]
    snapshot = take_snapshot(learner.stream_state)
    learner.served_pipeline.prepare(snapshot, [history], requests)  # the first call may grow arrays
    return Setup(learner, learner.served_pipeline, snapshot, history, requests)


def rank(made: Setup, pipeline: RankingPipeline, top_k: int = 0) -> list[RankResult]:
    """The results of the requests."""
    stream_state, results = made.learner.stream_state, []
    text = candidates.text_scores(made.snapshot, [request.history for request in made.requests])
    pipeline.prepare(made.snapshot, [made.history], made.requests)
    for n, request in enumerate(made.requests):
        query = user_query(stream_state, request.history, request.now, request.delay)
        user = candidates.user_signals(made.snapshot, query)
        blocked = np.zeros(0, np.int32)
        results.append(pipeline.rank(made.snapshot, PreparedRequest(request, n, user, text[n], blocked), top_k))
    return results


def test_frozen_pipeline_ranks_without_changing_state() -> None:
    made = trained_setup()
    made.pipeline.learns = False
    before = made.learner.state_dict()
    first, second = rank(made, made.pipeline), rank(made, made.pipeline)
    assert first[0].rank == second[0].rank >= 1
    assert made.pipeline.learn(made.snapshot, [made.history], [[3]], 1.0) == {}
    assert state_differences(made.learner.state_dict(), before) == []


def test_delayed_request_is_only_learned_from() -> None:
    made = trained_setup()
    examples = made.pipeline.ranker.examples_written
    current, delayed = rank(made, made.pipeline, top_k=5)
    assert len(current.top_M) == len(set(current.top_M.tolist())) == 5
    assert current.rank >= 1
    assert (delayed.rank, len(delayed.top_M)) == (0.0, 0)
    assert made.pipeline.ranker.examples_written == examples + 2


def example_weights(made: Setup, target: int) -> NDArray[np.float32]:
    """How many candidates each entry of the current request's training example stands for; the target is the first."""
    rank(made._replace(requests=[replace(made.requests[0], target=target)]), made.pipeline)
    ranker = made.pipeline.ranker
    newest = (ranker.examples_written - 1) % len(ranker.log_correction_NC)
    weight_C: NDArray[np.float32] = np.exp(ranker.log_correction_NC[newest])
    return weight_C


def test_example_weights_add_up_to_all_candidates() -> None:
    made, uniform_sampled = trained_setup(), {True: 0, False: 0}  # by whether the target is in the shortlist
    rows = np.flatnonzero(made.learner.stream_state.catalog.candidate_V)
    for target in rows.tolist():
        weight_C = example_weights(made, target)
        in_shortlist = bool(weight_C[0] == 1)
        assert weight_C[1:FIRST_UNIFORM].sum() == pytest.approx(SETTINGS.shortlist - in_shortlist)
        if weight_C[FIRST_UNIFORM:].any():  # else no uniform draw was outside the shortlist
            outside = len(rows) - SETTINGS.shortlist - (not in_shortlist)
            assert weight_C[FIRST_UNIFORM:].sum() == pytest.approx(outside)
            uniform_sampled[in_shortlist] += 1
    assert min(uniform_sampled.values()) > 3


def test_uniform_negatives_are_neither_listed_nor_the_target() -> None:
    made = trained_setup()
    rows = np.flatnonzero(made.learner.stream_state.catalog.candidate_V)
    made.pipeline.shortlist = len(rows)
    assert not any(example_weights(made, target)[FIRST_UNIFORM:].any() for target in rows.tolist())
    made.pipeline.shortlist = len(rows) - 1
    (unlisted,) = [target for target in rows.tolist() if example_weights(made, target)[0] < 1]
    assert not any(example_weights(made, unlisted)[FIRST_UNIFORM:].any() for _ in range(100))
    listed = next(target for target in rows.tolist() if target != unlisted)
    assert any(example_weights(made, listed)[FIRST_UNIFORM:].any() for _ in range(100))


def test_restored_pipeline_ranks_and_samples_the_same() -> None:
    made = trained_setup()
    titles = len(made.learner.stream_state.catalog)
    restored = new_pipeline(SETTINGS)
    restored.load_served(made.pipeline.served_state(titles))
    restored.load_training(made.pipeline.training_state(titles))
    for expected, result in zip(rank(made, made.pipeline, 5), rank(made, restored, 5), strict=True):
        assert (result.rank, result.top_M.tolist()) == (expected.rank, expected.top_M.tolist())
    for pipeline in (made.pipeline, restored):
        assert pipeline.learn(made.snapshot, [made.history], [[3]], 1.0)
    assert state_differences(restored.training_state(titles), made.pipeline.training_state(titles)) == []
