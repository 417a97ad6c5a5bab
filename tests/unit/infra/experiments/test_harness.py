"""The experiment harness: what is recorded of each event, and that measuring changes no rank."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from infra.data.datasets import Dataset, from_tables
from infra.data.tables import Table
from infra.errors import SettingsError
from infra.experiments import coldstart, compare, multitask, scaling, staleness
from infra.experiments.backbone_ranks import BackboneRanks, backbone_only
from infra.experiments.harness import ScoredEvents, action_codes, run_prequential
from model.actions import ACTIONS
from model.learner import Learner, RankedEvent
from model.pipeline import new_pipeline
from model.settings import LearnerSettings
from tests.support.evaluation import SETTINGS, SILENT, START_S, checkerboard, no_text


@pytest.fixture(scope="module")
def data() -> Dataset:
    return checkerboard(320)


def recorded_of(rows: Sequence[tuple[str, int, int, dict[str, float]]]) -> ScoredEvents:
    recorded = ScoredEvents()
    for user, title_events, user_events, ranks in rows:
        recorded.add(RankedEvent(user, "t", 0, title_events, user_events, {}), ranks)
    return recorded


def test_recorded_ranks_become_means_gains_and_curves() -> None:
    rows = [("a", 0, 0, {"x": 1.0, "y": 2.0}), ("a", 9, 9, {"x": 2.0, "y": math.inf})]
    rows += [("b", 10, 4, {"x": 4.0, "y": 4.0}), ("b", 50, 50, {"x": 4.0, "y": 2.0})]
    recorded = recorded_of(rows)
    assert recorded.mrr("x") == {"all": 0.5, "new_titles": 0.75, "unseen_titles": 1.0, "new_users": 0.625}
    gain = recorded.gain("x", "y")
    assert gain["all"] == {
        "mean": 0.1875,
        "low": -0.125,
        "high": 0.5,
        "events": 4,
        "users": 2,
    }  # of b, of a
    assert gain["unseen_titles"] is not None
    assert gain["unseen_titles"]["mean"] == 0.5
    assert recorded.curve(["y"], points=2) == {"events": [2.0, 4.0], "y": [0.25, 0.375]}
    assert recorded.curve(points=9)["events"] == [1.0, 2.0, 3.0, 4.0]


def test_slice_without_events_has_no_metrics() -> None:
    recorded = recorded_of([("a", 20, 20, {"x": 1.0, "y": 1.0})])
    assert recorded.mrr("x") == {"all": 1.0, "new_titles": None, "unseen_titles": None, "new_users": None}
    assert recorded.gain("x", "y")["new_users"] is None


def recorded_with_backbone_ranks(data: Dataset, settings: LearnerSettings) -> ScoredEvents:
    pipelines = {"full": new_pipeline(settings)}
    ranks = BackboneRanks(pipelines, settings.repeats)
    return run_prequential(data, no_text, Learner(settings, pipelines), SILENT, [ranks])


def test_measuring_changes_no_rank(data: Dataset) -> None:
    plain = run_prequential(data, no_text, Learner(SETTINGS), SILENT)
    measured = recorded_with_backbone_ranks(data, SETTINGS)
    assert len(plain) == len(measured) == 256  # the first fifth is not scored
    assert measured.ranks["full"] == plain.ranks["full"]


def test_backbone_only_rank_excludes_seen_titles(data: Dataset) -> None:
    recorded = recorded_with_backbone_ranks(data, SETTINGS)
    ranks = recorded.ranks[backbone_only("full")]
    assert len(ranks) == len(recorded)
    unseen = [60 - events for events in recorded.user_events]  # of 60 titles; no user returns to a title
    assert all(1 <= rank <= limit for rank, limit in zip(ranks, unseen, strict=True))


def test_event_on_a_waiting_title_has_no_backbone_rank(data: Dataset) -> None:
    evicting = replace(SETTINGS, stream_state=replace(SETTINGS.stream_state, max_titles=12))
    recorded = recorded_with_backbone_ranks(data, evicting)
    full, alone = (np.array(recorded.ranks[name]) for name in ("full", backbone_only("full")))
    waiting_N = np.isinf(alone)
    assert 0 < waiting_N.sum() < len(recorded)
    assert np.isinf(full[waiting_N]).all()
    assert (alone[~waiting_N] <= 12).all()


def test_nothing_scored_is_an_error_with_remedy() -> None:
    plays = [("u", "t", START_S + 600 * n, ["play", "finish"][n % 2]) for n in range(20)]
    events = Table("events", pd.DataFrame(plays, columns=["user", "item", "ts", "action"]))
    data = from_tables(events, None, name="one user, one title")
    for experiment in (multitask, staleness, coldstart):
        with pytest.raises(SettingsError, match=r"^Nothing was scored: .* --repeats"):
            experiment.report(data, no_text, SETTINGS, SILENT)
    with pytest.raises(SettingsError, match="Nothing was scored"):
        compare.report(data, no_text, SETTINGS, ("current", "current"), SILENT)
    with pytest.raises(SettingsError, match="Nothing was scored"):
        scaling.report(data, no_text, SETTINGS, SILENT, ("4x1", "8x1", "12x1", "16x1", "20x1"), seeds=1)


def test_several_actions_at_one_time_keep_their_order() -> None:
    done = [("u", "a", "finish"), ("u", "b", "play"), ("u", "a", "dislike"), ("u", "a", "play"), ("v", "a", "like")]
    events = pd.DataFrame([(*of, START_S) for of in done], columns=["user", "item", "action", "ts"])
    data = from_tables(Table("events", events), None, name="synthetic")
    back = replace(SETTINGS, repeats=True)
    for settings, actions in ((back, ["finish", "play", "play", "like"]), (SETTINGS, ["finish", "play", "like"])):
        recorded = run_prequential(data, no_text, Learner(settings), SILENT, first=0)
        assert action_codes(data, recorded).tolist() == [ACTIONS[action].code for action in actions]
