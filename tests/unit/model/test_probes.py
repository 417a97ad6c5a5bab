"""Probes are ranked with the present state, by string ids, and leave no trace in what is learned."""

import math

import numpy as np
import pytest
import torch

from model.learner import Learner
from model.probes import LIST_TITLES, Probe, new_probe, rank_probes
from tests.support.learner import PLAY, SETTINGS, RandomStream, state_differences, update

torch.set_num_threads(1)


def learned(batches: int = 20) -> tuple[Learner, RandomStream]:
    learner, stream = Learner(SETTINGS), RandomStream(seed=5)
    for batch in stream.batches(batches):
        learner.observe(batch)
    return learner, stream


def probes_of(learner: Learner, stream: RandomStream) -> list[Probe]:
    """The last event of each user whose title is a candidate."""
    catalog, found = learner.stream_state.catalog, []
    for user, history in stream.histories.items():
        titles, times, actions = (list(column) for column in zip(*history, strict=True))
        row = catalog.rows.get(titles[-1])
        if row is not None and catalog.candidate_V[row]:
            found.append(Probe(user, titles, times, actions))
    return found


def test_probe_holds_the_history_up_to_its_event() -> None:
    probe = new_probe(update("u", ["a", "b", "c", "d"], new=2), 2, max_events=2)
    assert (probe.user, probe.titles, probe.actions, len(probe.times)) == ("u", ["b", "c"], [PLAY, PLAY], 2)


def test_ranking_probes_changes_nothing_that_is_learned_later() -> None:
    learner, stream = learned()
    undisturbed, before = Learner(SETTINGS), learner.state_dict()
    undisturbed.load_state_dict(learner.state_dict())
    results = rank_probes(learner, probes_of(learner, stream))
    assert len(results) > 4
    assert state_differences(before, learner.state_dict()) == []
    for batch in stream.batches(5):
        assert repr(learner.observe(batch)) == repr(undisturbed.observe(batch))
    assert state_differences(learner.state_dict(), undisturbed.state_dict()) == []


def test_rank_is_the_position_of_the_target_in_the_list() -> None:
    learner, stream = learned()
    probes = probes_of(learner, stream)
    results = rank_probes(learner, probes)
    for probe, result in zip(probes, results, strict=True):
        assert len(result.top) <= LIST_TITLES
        if probe.titles[-1] in result.top:
            assert result.rank == pytest.approx(1 + result.top.index(probe.titles[-1]), abs=1)
        catalog, user_store = learner.stream_state.catalog, learner.stream_state.user_store
        seen = {catalog.ids[row] for row in user_store.seen_by(probe.user).tolist()}
        assert seen & set(result.top) <= {probe.titles[-1]}
    assert any(result.rank < 5 for result in results)


def test_evicted_title_and_title_that_is_not_launched_have_rank_infinity() -> None:
    learner, _ = learned()
    results = rank_probes(learner, [Probe("u", ["never", "gone"], [1, 2], [PLAY, PLAY])])
    assert (results[0].rank, results[0].top) == (math.inf, [])


def test_not_finite_scores_give_rank_infinity() -> None:
    learner, stream = learned()
    with torch.no_grad():
        learner.served_pipeline.ranker.linear_F[:] = np.nan
    assert {result.rank for result in rank_probes(learner, probes_of(learner, stream))} == {math.inf}
    assert not learner.served_pipeline.is_finite()
