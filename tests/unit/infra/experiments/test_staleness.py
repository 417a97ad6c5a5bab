"""Stale lists on a ring of titles, where each title determines the next, so that the value of an old list is known."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib import image
from typer.testing import CliRunner

from infra.cli.main import app
from infra.experiments import staleness
from infra.experiments.backbone_ranks import BACKBONE_ONLY, FINAL_LISTS, ORDER_LABELS
from infra.experiments.evaluate import write
from infra.experiments.stale_lists import EVENT_AGES, FILTERED, UNFILTERED, event_age_label, horizon_for
from infra.experiments.staleness import (
    BASELINES,
    CURRENT,
    DELAY_TRAINED,
    DELAYS,
    FIRST_HORIZON,
    HORIZONS,
    NEXT_EVENT,
    WINDOWS,
    build_variants,
    matching_horizon,
    variant_settings,
)
from infra.experiments.variants import WithoutDelayed
from infra.experiments.verdicts import BETTER, INCONCLUSIVE, WORSE
from tests.support.evaluation import SETTINGS, SILENT, START_S, random_text, ring


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """A report of a well-trained model. With texts that distinguish the titles, 20 steps per micro-batch learn the ring
    with any seed on any CPU: next-event training reaches an MRR of 0.94 to 1. With ids only it was 0.5 to 0.75, by the
    rounding of the CPU."""
    sequence = SETTINGS.sequence
    network = replace(sequence.network, max_history=32, dropout=0.0)
    objective, optim = replace(sequence.objective, negatives=32), replace(sequence.optim, lr=5e-3)
    sequence = replace(sequence, network=network, objective=objective, steps=20, replay_windows=6, optim=optim)
    settings = replace(SETTINGS, sequence=sequence, repeats=True)
    return staleness.report(ring(360), random_text, settings, SILENT, sample_every=10)


@pytest.mark.learned
def test_old_list_is_wrong_where_last_title_determines_next(found: dict[str, Any]) -> None:
    for order in ORDER_LABELS:
        mrr = found["by_events"][order][UNFILTERED]["mrr"][NEXT_EVENT]
        assert mrr["0 events"] > 2 * mrr["1 events"]  # the list misses the events that determine the next one
        fresh = found["by_hours"][order][UNFILTERED]["mrr"][NEXT_EVENT]
        assert fresh["0 hours"] > 2 * fresh["6 hours"]


@pytest.mark.learned
def test_window_training_starts_lower_and_keeps_longer(found: dict[str, Any]) -> None:
    of = found["by_events"][BACKBONE_ONLY][UNFILTERED]
    mrr, gain = of["mrr"], of["gain"]["window 3 over next event"]
    assert mrr["window 3"]["0 events"] < mrr[NEXT_EVENT]["0 events"]
    assert mrr["window 3"]["1 events"] > mrr[NEXT_EVENT]["1 events"]
    assert gain["0 events"]["mean"] == pytest.approx(mrr["window 3"]["0 events"] - mrr[NEXT_EVENT]["0 events"])


@pytest.mark.learned
def test_horizons_differ_from_first_horizon_at_later_ages(found: dict[str, Any]) -> None:
    mrr = found["by_events"][BACKBONE_ONLY][UNFILTERED]["mrr"]
    same = {k: mrr[HORIZONS][event_age_label(k)] == mrr[FIRST_HORIZON][event_age_label(k)] for k in EVENT_AGES}
    assert same == {k: horizon_for(DELAYS, k) == 0 for k in EVENT_AGES}


def test_repeats_remove_no_titles_at_reading(found: dict[str, Any]) -> None:
    for order in ORDER_LABELS:
        assert found["by_events"][order][FILTERED] == found["by_events"][order][UNFILTERED]


def test_variants_have_their_training_targets() -> None:
    trained = variant_settings(SETTINGS)
    targets = {
        name: (own.sequence.network.horizons, own.sequence.objective.target_windows) for name, own in trained.items()
    }
    assert targets[NEXT_EVENT] == ((0,), (1,))
    assert [targets[name] for name in WINDOWS] == [((0,), (3,)), ((0,), (5,)), ((0,), (10,))]
    assert targets[HORIZONS][0] == DELAYS
    assert trained[CURRENT] == SETTINGS
    pipelines, variants = build_variants(SETTINGS)
    assert {name for name, pipeline in pipelines.items() if not isinstance(pipeline, WithoutDelayed)} == {
        HORIZONS,
        CURRENT,
        DELAY_TRAINED,
    }
    assert variants[DELAY_TRAINED].backbone is pipelines[NEXT_EVENT].sequence


def gain_of(low: float, high: float, users: int = 30) -> dict[str, float]:
    return {"mean": (low + high) / 2, "low": low, "high": high, "users": users}


BETTER_GAIN, WORSE_GAIN, UNCLEAR_GAIN = gain_of(0.01, 0.02), gain_of(-0.02, -0.01), gain_of(-0.01, 0.02)


@pytest.mark.parametrize(
    ("gain", "next_event_at_10", "expected"),
    [
        (BETTER_GAIN, BETTER_GAIN, {"verdict": BETTER, BETTER: 16, WORSE: 0, INCONCLUSIVE: 0}),
        (gain_of(0.01, 0.02, users=9), UNCLEAR_GAIN, {"verdict": INCONCLUSIVE, BETTER: 0, WORSE: 0, INCONCLUSIVE: 16}),
        (UNCLEAR_GAIN, WORSE_GAIN, {"verdict": WORSE, BETTER: 0, WORSE: 1, INCONCLUSIVE: 15}),
    ],
)
def test_matching_horizon_verdict_follows_from_intervals(
    gain: dict[str, float], next_event_at_10: dict[str, float], expected: dict[str, Any]
) -> None:
    ages = [event_age_label(k) for k in EVENT_AGES]
    gains = {f"{HORIZONS} over {baseline}": dict.fromkeys(ages, gain) for baseline in BASELINES}
    gains[f"{HORIZONS} over {NEXT_EVENT}"] |= {"10 events": next_event_at_10}
    assert matching_horizon(gains) == expected


def test_report_is_consistent(found: dict[str, Any], tmp_path: Path) -> None:
    by_events, by_hours = found["by_events"], found["by_hours"]
    assert found["scored"] == 288
    assert 0 < by_events["scored"][FINAL_LISTS] < by_events["scored"][BACKBONE_ONLY] <= found["scored"]
    assert by_hours["scored"] == 28  # one event in ten
    assert by_hours["missed"]["0 hours"] == by_hours["empty"]["0 hours"] == 0
    assert by_hours["missed"]["6 hours"] == by_hours["scored"]  # no user pauses for so long
    assert by_hours["empty"]["48 hours"] > by_hours["empty"]["6 hours"]
    assert by_hours["gaps"]["0 hours"] == found["scored"] > by_hours["gaps"]["1 hours"] > by_hours["gaps"]["6 hours"]
    write(found, tmp_path / "stale.json")
    assert json.loads((tmp_path / "stale.json").read_text())["by_events"] == by_events


def test_command_runs_on_a_csv_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(n % 2, (n * 7) % 61, START_S + 600 * n) for n in range(60)]
    pd.DataFrame(rows, columns=["user", "item", "ts"]).to_csv("e.csv", index=False)
    arguments = ["staleness", "--every", "20", "--events", "e.csv", "--report", "r.json", "--figure", "f.png"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "60 events, 48 scored, 2 users." in result.output
    assert json.loads(Path("r.json").read_text())["sample_every"] == 20
    assert image.imread("f.png").shape[0] > 300
