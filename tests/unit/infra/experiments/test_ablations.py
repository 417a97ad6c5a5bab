"""Ablations differ from the default in what they name, and their groups merge into one table."""

import pytest

from infra.data.datasets import Dataset
from infra.experiments import ablations
from infra.experiments.ablations import DEFAULT, Ablation
from infra.experiments.harness import run_prequential
from model.learner import Learner
from model.metrics.ranking import SLICES
from model.pipeline import Pipeline, new_pipeline
from model.signals.table import DENSE_SIGNALS, SIGNALS
from tests.support.evaluation import SETTINGS, SILENT, checkerboard, no_text


@pytest.fixture(scope="module")
def data() -> Dataset:
    return checkerboard(320)


def test_every_signal_is_in_one_group() -> None:
    groups = ablations.signal_groups()
    assert sorted(name for names in groups.values() for name in names) == sorted(SIGNALS)
    assert all("backbone" in name for name in groups["backbone"])
    assert groups["repeats"] == ("repeat recency", "repeat count")


def test_every_ablation_changes_what_its_label_names() -> None:
    rows = [row for group in ablations.ablation_groups(0.2).values() for row in group]
    assert len({row.label for row in rows}) == len(rows)
    for row in rows:
        others = row.hidden_signals, row.learns_delayed
        assert row.change(SETTINGS) != SETTINGS or others != ((), True), row.label
    by_label = {row.label: row.change(SETTINGS) for row in rows}
    assert by_label["no text tower"].sequence.network.use_text is False
    assert by_label["double the replay"].sequence.replay_windows == 2 * SETTINGS.sequence.replay_windows
    assert by_label["one horizon, no delayed requests"].sequence.network.horizons == (0,)
    assert by_label["row-wise Adagrad without decay"].sequence.optim.row_decay == 1.0
    assert by_label["counters read 25 events"].stream_state.history == 25


def test_hidden_signals_have_no_weight_in_the_linear_score(data: Dataset) -> None:
    hidden = ("popularity total", "transition recent", "user idle time")
    default = new_pipeline(SETTINGS)
    ablation = Ablation("masked", hidden_signals=hidden, shares_backbone=True)
    masked = ablations.ablated_pipeline(ablation, SETTINGS)
    variants: dict[str, Pipeline] = {"full": default, "masked": ablations.variant_of(ablation, masked, default)}
    run_prequential(data, no_text, Learner(SETTINGS, variants), SILENT)
    weights = dict(zip(DENSE_SIGNALS, masked.ranker.linear_weights_F.tolist(), strict=True))
    assert weights["popularity total"] == weights["transition recent"] == 0.0
    assert weights["popularity hour"] != 0.0


def test_gains_are_measured_against_the_default(data: Dataset) -> None:
    rows = [
        Ablation("no replay", ablations.scaled_replay(0)),
        Ablation("own stream", ablations.counters(history=2), own_stream=True),
    ]
    results = ablations.run(rows, data, no_text, SETTINGS, SILENT)
    assert list(results) == [DEFAULT, "no replay", "own stream"]
    default = results[DEFAULT]
    assert default["gain"]["all"]["mean"] == 0.0
    for row in results.values():
        assert list(row["mrr"]) == list(SLICES)
        assert row["gain"]["all"]["mean"] == pytest.approx(row["mrr"]["all"] - default["mrr"]["all"])
        difference = row["backbone_only_mrr"]["all"] - default["backbone_only_mrr"]["all"]
        assert row["backbone_only_gain"]["all"]["mean"] == pytest.approx(difference)
    backbone = {label: row["backbone_only_mrr"]["all"] for label, row in results.items()}
    assert backbone["no replay"] != backbone[DEFAULT]
    assert backbone["own stream"] == backbone[DEFAULT]  # the backbone does not read counters


def test_groups_merge_only_if_their_defaults_are_equal() -> None:
    one, other = ({"mrr": {"all": value}} for value in (0.5, 0.25))
    merged = ablations.merge_groups({"a": {DEFAULT: one, "x": other}, "b": {DEFAULT: one, "y": one}})
    assert list(merged) == [DEFAULT, "x", "y"]
    with pytest.raises(AssertionError, match="different runs"):
        ablations.merge_groups({"a": {DEFAULT: one}, "b": {DEFAULT: other}})
