"""The learner's counts become metrics, restored totals included."""

from pathlib import Path

import pytest
import torch

from model.learner import Learner
from streaming.state.checkpoints import CheckpointStore
from streaming.state.log_learner import LogLearner
from tests.support.learn_in_memory import LOG_SETTINGS, metric, run_learn
from tests.support.learner import SETTINGS, LogBuilder

torch.set_num_threads(1)


def totals() -> dict[str, float]:
    return {
        "learned": metric("premiere_learned_events_total"),
        "duplicates": metric("premiere_learner_duplicates_total"),
        "scored": metric("premiere_prequential_scored_total", slice="all"),
        "mrr": metric("premiere_prequential_sum_total", variant="full", metric="mrr", slice="all"),
    }


def test_counters_include_the_totals_of_the_restored_checkpoint(tmp_path: Path) -> None:
    log = LogBuilder(seed=1).add_rounds(30)
    learner = LogLearner(Learner(SETTINGS), LOG_SETTINGS)
    for end in (60, len(log.messages)):  # the second process starts from the checkpoint of the first
        before = totals()
        run_learn(log.messages[learner.position : end], tmp_path, learner)
        increases = {name: total - before[name] for name, total in totals().items()}
        ranking = learner.evaluation.rankings["full"]
        assert increases["mrr"] == pytest.approx(ranking.sums()[0, 0])
        assert (increases["learned"], increases["duplicates"]) == (learner.learned, learner.duplicates)
        assert increases["scored"] == ranking.scored()["all"] > 0
        found = CheckpointStore(str(tmp_path)).load_newest()
        assert found is not None
        learner = LogLearner(Learner(SETTINGS), LOG_SETTINGS)
        learner.load_state_dict(found[0])


def test_model_counts_are_exported_as_metrics(tmp_path: Path) -> None:
    log = LogBuilder(seed=1).add_rounds(30)
    learner = LogLearner(Learner(SETTINGS), LOG_SETTINGS)
    learner.learner.served_pipeline.ranker.skipped_steps = 3
    names = ("unknown_title_events_total", "waiting_title_events_total", "title_evictions_total", "skipped_steps_total")
    labels: list[dict[str, str]] = [{}, {}, {}, {"part": "ranker"}]
    before = [metric(f"premiere_learner_{name}", **label) for name, label in zip(names, labels, strict=True)]
    run_learn(log.messages, tmp_path, learner)
    after = [metric(f"premiere_learner_{name}", **label) for name, label in zip(names, labels, strict=True)]
    stream_state = learner.learner.stream_state
    counts = [
        learner.evaluation.unknown_title_events,
        stream_state.waiting_title_events,
        stream_state.evicted_titles,
        3,
    ]
    assert [b - a for a, b in zip(before, after, strict=True)] == counts
    assert stream_state.waiting_title_events > 0 < stream_state.evicted_titles
    assert metric("premiere_prequential_recent_window_seconds") == 86_400  # of popularity_1d, which is the first one
    assert metric("premiere_learner_waiting_titles") == len(stream_state.admission)
