"""Comparing two settings: equal settings rank equally, a worse setting loses, and the last days are the test."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
from matplotlib import image
from typer.testing import CliRunner

from infra.cli.main import app
from infra.data.datasets import Dataset
from infra.errors import SettingsError
from infra.experiments import compare
from infra.experiments.backbone_ranks import BACKBONE_ONLY, FINAL_LISTS, ORDER_LABELS, backbone_only, recorded_name
from infra.experiments.scaling import with_size
from infra.experiments.verdicts import INCONCLUSIVE, WORSE
from infra.learner_settings import learner_settings
from infra.settings import load
from model.settings import BackboneSize, LearnerSettings, preset
from tests.support.evaluation import DAY_S, SETTINGS, SILENT, START_S, checkerboard, dataset_of, no_text
from tests.support.figures import assert_gains_drawn, axes_of, labeled_lines

# Most of the 60 titles are evicted. A single event gives an evicted title a row again, so both sides score all events.
WORSE_SETTING: Final = "max_titles=4,min_users_before_launch=1"


def run_compare(names: tuple[str, str], data: Dataset | None = None, days: float | None = None) -> dict[str, Any]:
    return compare.report(data or checkerboard(320), no_text, SETTINGS, names, SILENT, days)


@pytest.fixture(scope="module")
def worse() -> dict[str, Any]:
    return run_compare(("current", WORSE_SETTING))


def test_equal_settings_rank_every_event_equally() -> None:
    found = run_compare(("current", "seed=1"))  # the current seed is 1
    assert found["scored"] == 256
    for by_part in found["gain"].values():
        assert all(gain[key] == 0 for gain in by_part.values() if gain for key in ("mean", "low", "high"))
    assert found["mrr"]["A"] == found["mrr"]["B"]
    assert found["curve"][backbone_only("A")] == found["curve"][backbone_only("B")]
    assert found["verdict"] == INCONCLUSIVE
    assert list(compare.lines(found))[-1] == compare.conclusion(found)
    assert "do not differ" in compare.conclusion(found)


@pytest.mark.learned
def test_variant_that_evicts_titles_loses(worse: dict[str, Any]) -> None:
    gain = worse["gain"][FINAL_LISTS]["all"]
    assert gain["high"] < 0
    assert worse["gain"][BACKBONE_ONLY]["all"]["high"] < 0
    assert worse["mrr"]["B"]["all"] < 0.5 * worse["mrr"]["A"]["all"]
    assert gain["mean"] == pytest.approx(worse["mrr"]["B"]["all"] - worse["mrr"]["A"]["all"])
    assert worse["verdict"] == WORSE
    assert f"A (current) is better than B ({WORSE_SETTING})" in compare.conclusion(worse)


def test_conclusion_follows_verdict(worse: dict[str, Any]) -> None:
    def conclusion(low: float, high: float, users: int = 30) -> str:
        gain = {"mean": 0.1, "low": low, "high": high, "events": 99, "users": users}
        return compare.conclusion(worse | {"gain": {FINAL_LISTS: {"all": gain}}})

    assert f"B ({WORSE_SETTING}) is better than A (current)" in conclusion(0.01, 0.2)
    assert "fewer than 10 users" in conclusion(0.1, 0.1, users=1)
    assert "contains zero" in conclusion(-0.01, 0.2)


def test_report_is_consistent_and_readable(worse: dict[str, Any]) -> None:
    parts = worse["parts"]
    assert sum(parts[age] for age in ("0", "1-4", "5-19", "20+")) == parts["all"] == worse["scored"]
    events = [event.title for event in map(checkerboard(320).event, range(320))]
    firsts = sum(title not in events[:n] for n, title in enumerate(events) if n >= 64)
    assert parts["0"] == firsts  # even if B has evicted the title
    assert json.loads(json.dumps(worse))["settings"]["B"]["stream_state"]["max_titles"] == 4
    text = "\n".join(compare.lines(worse))
    assert "titles of 1-4 events" in text
    assert f"{worse['mrr'][backbone_only('B')]['all']:.4f}" in text
    conclusion, significant = text.splitlines()[-2:]
    assert conclusion == compare.conclusion(worse)
    assert "; backbone only, all -" in significant
    assert "titles of 20+ events" not in significant  # there was none


def test_figure_has_both_curves_and_the_gain_of_each_part(worse: dict[str, Any]) -> None:
    curve, names, parts = worse["curve"], worse["names"], list(worse["parts"])
    with axes_of(compare.draw, worse) as (left, right):
        curves = labeled_lines(left)
        assert len(curves) == 4
        for side in ("A", "B"):
            for order, suffix in ((FINAL_LISTS, ""), (BACKBONE_ONLY, ", backbone only")):
                expected = [curve["events"], curve[recorded_name(side, order)]]
                np.testing.assert_array_equal(curves[f"{side}: {names[side]}{suffix}"], expected)
        gains = {ORDER_LABELS[order]: worse["gain"][order] for order in (FINAL_LISTS, BACKBONE_ONLY)}
        by_row = {label: {parts.index(p): gain for p, gain in by_part.items()} for label, by_part in gains.items()}
        assert_gains_drawn(right, by_row)
        assert right.get_title() == "MRR of B less that of A"


def test_last_days_are_scored_and_earlier_days_only_learned() -> None:
    data = dataset_of([(n % 7, n % 31, START_S + n * DAY_S // 10) for n in range(200)])  # ten events a day
    assert compare.first_test_event(data, 7) == 130  # the last 70
    assert compare.first_test_event(data, None) == 40
    found = run_compare(("current", "current"), data, days=7)
    assert (found["warmup_events"], found["scored"], found["days"]) == (130, 70, 7)
    assert found["curve"]["until"][-1] == "2020-10-03T10:02+00:00"
    with pytest.raises(SettingsError, match=r"span 19\.9 days"):
        compare.first_test_event(data, 20)


def test_settings_are_parsed_from_text() -> None:
    base = LearnerSettings()
    assert compare.parse_settings("current", base) == base
    assert compare.parse_settings("2m", base).sequence.network == preset("2m")
    assert compare.parse_settings("32x4,seed=5", base) == replace(with_size(base, BackboneSize(32, 4, 1)), seed=5)
    changed = compare.parse_settings(
        "10m, model_history=50,learner.delayed_query_share=0,objective.logq=none,ranker.hidden=[8,4]", base
    )
    assert changed.sequence.network == replace(preset("10m"), max_history=50)
    assert (changed.delayed_query_share, type(changed.delayed_query_share)) == (0.0, float)
    assert (changed.sequence.objective.logq, changed.ranker.hidden) == ("none", (8, 4))
    assert compare.parse_settings("2m", changed).sequence.network == replace(preset("2m"), max_history=50)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("huge", r"'huge' .*\(cpu, 2m, "),
        ("backbone.widht=8", r"backbone.widht is no setting that can be compared: did you mean backbone\.width\?"),
        ("seed=1,seed=2", "seed is given twice"),
        ("backbone=8", "backbone is no setting"),
        ("learner.capacity=300", "learner.capacity is no setting that can be compared"),
        ("horizons=0", "horizons is no setting that can be compared"),
        ("seed=x", "Invalid value of the setting seed"),
        ("backbone.width=1.5", r"Invalid value of the setting backbone\.width: it must be a whole number"),
        ("backbone.heads=3", "no multiple of backbone.heads 3"),
    ],
)
def test_invalid_settings_name_the_remedy(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        compare.parse_settings(text, LearnerSettings())


def test_equal_sides_are_refused() -> None:
    compare.refuse_equal_sides(("seed=1", "seed=2"), LearnerSettings())
    with pytest.raises(SettingsError, match=r"A \(current\) and B \(cpu\) are the same settings"):
        compare.refuse_equal_sides(("current", "cpu"), LearnerSettings())


def test_better_settings_are_shown_as_lines_of_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "2m,seed=5,optimizer.lr=0.01,optimizer.ema=0.5,ranker.hidden=[8,4],objective.logq=none,backbone.use_text=false"
    )
    monkeypatch.chdir(tmp_path)
    Path("premiere.toml").write_text(compare.as_toml(text))
    assert learner_settings(load()) == compare.parse_settings(text, LearnerSettings())
    Path("premiere.toml").write_text(compare.as_toml("current,32x4"))
    assert learner_settings(load()) == compare.parse_settings("32x4", LearnerSettings())


def test_commands_run_on_a_csv_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(n % 5, (n * 7) % 13, START_S + 600 * n) for n in range(60)]
    pd.DataFrame(rows, columns=["user", "item", "ts"]).to_csv("e.csv", index=False)
    for command in (["coldstart", "--mask", "0.2"], ["compare", "cpu", "learner.shortlist=2"]):
        arguments = [*command, "--events", "e.csv", "--report", "r.json", "--figure", "f.png"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert "60 events" in result.output or "12 warm-up events" in result.output
        assert json.loads(Path("r.json").read_text())["data"] == "e"
        assert image.imread("f.png").shape[0] > 300
    wrong = CliRunner().invoke(app, ["compare", "cpu", "large", "--events", "e.csv"])
    assert (wrong.exit_code, wrong.stderr[:30]) == (2, "premiere: 'large' is not 'curr")
