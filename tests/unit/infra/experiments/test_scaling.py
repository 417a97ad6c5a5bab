"""Scaling laws on known curves, verdicts that follow from intervals, and a sweep of tiny sizes."""

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
from infra.data.datasets import from_tables
from infra.data.simulate import simulate
from infra.data.tables import Table
from infra.errors import SettingsError
from infra.experiments import scaling, scaling_report
from infra.experiments.evaluate import write
from infra.experiments.flops import parameters
from infra.experiments.harness import BACKBONE_ONLY, FINAL_LISTS, ScoredEvents, instrumented, run_prequential
from infra.experiments.scaling import DELAYED, NO_BACKBONE, DelayedEvaluation, parse_size, sweep
from infra.experiments.scaling_report import DOES_NOT_PAY, FLAT, PAYS, SATURATES
from infra.experiments.verdicts import INCONCLUSIVE
from model.learner import Learner, LearnerSettings, RankedEvent
from model.metrics.bootstrap import bootstrap_means
from model.metrics.scaling_law import Floats, fit_laws, resample_seeds
from model.pipeline import RankingRequest
from model.sequence.backbone import PRESETS, BackboneSize
from model.sequence.network import preset
from model.signals import candidates
from model.state.stream_state import History
from tests.support.evaluation import SETTINGS, START_S, dataset_of, no_log, no_text

N: Final = np.array([3e3, 1e4, 9e4, 3e5, 8e5, 2e6])
P0, A, N0 = 0.31, 0.4, 200.0
CURVE: Final = P0 - (N / N0) ** -A
LINE: Final = 0.05 + 0.01 * np.log(N)


def drawn(p_S: Floats, users: int, noise: float, seed: int = 1) -> tuple[Floats, Floats]:
    """Points and bootstrap resamples of users with different levels and, in each size, noise."""
    random = np.random.default_rng(seed)
    value_NS = p_S + random.normal(0, 0.1, (users, 1)) + random.normal(0, noise, (users, len(p_S)))
    return value_NS.mean(0), bootstrap_means(value_NS, np.arange(users), 300)


def exact(p_S: Floats) -> dict[str, Any]:
    return fit_laws(N, p_S, np.stack([p_S, p_S]))


def test_offset_law_recovers_its_parameters() -> None:
    found = exact(CURVE)
    assert found["p0"]["fit"] == pytest.approx(P0, abs=5e-4)
    assert found["a"] == pytest.approx(A, rel=5e-3)
    assert found["n0"] == pytest.approx(N0, rel=2e-2)
    assert found["at_lower_bound"] == 0
    doubled = P0 - (2 * N / N0) ** -A
    assert [gain["mean"] for gain in found["doubling"]] == pytest.approx(doubled - CURVE, rel=1e-2)


def test_p0_interval_covers_truth_and_narrows_with_users() -> None:
    widths = []
    for users in (300, 30_000):
        found = fit_laws(N, *drawn(CURVE, users, 0.1))
        low, high = found["p0"]["low"], found["p0"]["high"]
        assert low < P0 < high
        widths.append(high - low)
    assert widths[1] < 0.3 * widths[0]


def test_saturating_and_log_linear_curves_are_distinguished() -> None:
    saturating, log_linear = exact(CURVE), exact(LINE)
    assert saturating["rmse"]["offset"] < 0.01 * saturating["rmse"]["log-linear"]
    assert saturating["leave_one_out_rmse"]["offset"] < 0.01 * saturating["leave_one_out_rmse"]["log-linear"]
    assert log_linear["rmse"]["log-linear"] < 1e-9
    assert log_linear["leave_one_out_rmse"]["log-linear"] < 1e-9 < log_linear["leave_one_out_rmse"]["offset"]
    assert (log_linear["p0"]["fit"], log_linear["p0"]["high"], log_linear["at_lower_bound"]) == (None, None, 1.0)


@pytest.mark.parametrize("p_S", [np.full(6, 0.25), np.linspace(0.3, 0.2, 6)])
def test_curve_without_growth_has_its_mean_as_p0(p_S: Floats) -> None:
    found = exact(p_S)
    assert found["p0"]["fit"] == pytest.approx(0.25)
    assert (found["a"], found["n0"]) == (None, None)
    assert all(gain["high"] == 0 for gain in found["doubling"])


def test_seed_variation_widens_the_resamples() -> None:
    runs_SK = np.random.default_rng(2).normal(0.3, 0.02, (6, 4))
    p_DS = resample_seeds(np.repeat(runs_SK[None], 4000, 0))
    assert p_DS.mean(0) == pytest.approx(runs_SK.mean(1), abs=1e-3)
    assert p_DS.std(0) == pytest.approx(runs_SK.std(1, ddof=1) / 2, rel=0.05)
    one_DSK = runs_SK[None, :, :1]
    assert np.array_equal(resample_seeds(one_DSK), one_DSK[..., 0])


def order_result(p_S: Floats, users: int, noise: float) -> dict[str, Any]:
    """The result of one task in one order, for sizes s0 to s5."""
    names = [f"s{k}" for k in range(len(N))]
    points_S, p_DS = drawn(p_S, users, noise)
    return {"mrr": dict(zip(names, points_S.tolist(), strict=True)), "law": fit_laws(N, points_S, p_DS)}


SATURATING: Final = 0.3 - 0.2 * (N / N[0]) ** -0.6  # at s3, 1 % is 0.0029 and doubling gains 0.0043


@pytest.mark.parametrize(
    ("p_S", "users", "noise", "growth", "size", "saturation"),
    [
        (np.full(6, 0.3), 20_000, 0.02, DOES_NOT_PAY, "s0", None),
        (np.linspace(0.3, 0.29, 6), 20_000, 0.02, DOES_NOT_PAY, "s0", FLAT),
        (SATURATING, 20_000, 0.02, DOES_NOT_PAY, "s4", SATURATES),
        (LINE, 20_000, 0.01, PAYS, "s5", INCONCLUSIVE),
        (LINE, 20, 0.2, INCONCLUSIVE, "s5", INCONCLUSIVE),
    ],
    ids=["constant", "falling", "saturating", "log-linear", "few users"],
)
def test_verdicts_follow_from_intervals(
    p_S: Floats, users: int, noise: float, growth: str, size: str, saturation: str | None
) -> None:
    result = order_result(p_S, users, noise)
    verdict = scaling_report.growth_verdict(result)
    assert (verdict["verdict"], verdict["size"]) == (growth, size)
    assert saturation in (None, scaling_report.saturation_verdict(result))


def test_p0_above_1_is_called_an_artifact() -> None:
    result = {"mrr": {"s0": 0.9}, "law": {"p0": {"fit": 1.01, "low": 0.95, "high": 1.1}, "a": 0.3}}
    assert scaling_report.saturation_verdict(result) == SATURATES
    assert "artifact" in scaling_report.describe_saturation(result)


def test_sizes_are_parsed_from_names() -> None:
    assert parse_size("64x2") == BackboneSize(64, 2, 2) == PRESETS["cpu"]
    assert parse_size("16x1") == BackboneSize(16, 1, 1)
    assert parse_size("50m") == PRESETS["50m"]
    for name in ("large", "64x", "x2", "0x1", "-8x1", "65x1"):
        with pytest.raises(SettingsError, match=name):
            parse_size(name)


def test_sweep_changes_only_the_backbone_and_sorts_by_size() -> None:
    found = sweep(["2m", "64x2", "16x1", "96x3", "10m"], LearnerSettings())
    assert list(found) == ["16x1", "64x2", "96x3", "2m", "10m"]
    assert found["64x2"] == LearnerSettings()
    assert parameters(preset("1b")) == 1_015_218_624  # as documented; allocates no memory
    network = found["10m"].sequence.network
    assert (network.width, network.blocks, network.heads) == (320, 9, 5)
    same = replace(network, width=64, blocks=2, heads=2)
    assert replace(found["10m"], sequence=replace(found["10m"].sequence, network=same)) == LearnerSettings()
    for too_few in (["2m", "64x2", "16x1", "96x3"], ["2m", "64x2", "cpu", "16x1", "96x3", "32x1"]):
        with pytest.raises(SettingsError, match="5 distinct sizes"):
            sweep(too_few, LearnerSettings())


def test_delayed_lists_use_old_history_and_are_not_learned() -> None:
    settings = replace(SETTINGS, delayed_query_share=0.0)
    data = simulate(8, 40, 160)
    pipelines = {name: instrumented(settings) for name in ("a", "b")}
    delayed = DelayedEvaluation(settings, {"a": pipelines["a"]}, first=32)
    recorded = run_prequential(data, no_text, Learner(settings, {**pipelines, DELAYED: delayed}), no_log)
    assert recorded.ranks["a"] == recorded.ranks["b"]
    assert 0 < len(delayed.recorded) < len(recorded) / 3
    learner = Learner(settings)
    history = History("u", np.arange(9), np.arange(9) * 1000, np.ones(9, np.int64))
    requests = [RankingRequest(history.before(k), 1000 * k, k, 1, 0, k) for k in range(9)]
    delayed = DelayedEvaluation(settings, {}, first=0)
    delayed.prepare(candidates.take_snapshot(learner.stream_state), [history], requests)
    assert {n: (context.history.rows_L.tolist(), context.made_at) for n, context in delayed.contexts.items()} == {
        4: ([0, 1], 1000),  # two events ago; event 0 has no history, and the others are not sampled
        8: ([0, 1, 2, 3, 4, 5], 5000),
    }


def test_delayed_list_removes_titles_seen_since() -> None:
    rows = [(user, item, START_S + 600 * (9 * user + item)) for user in range(9) for item in range(9)]
    titles = [{"item": item, "title": f"t{item}", "launched_ts": START_S - 300} for item in range(9)]
    settings = replace(SETTINGS, delayed_query_share=0.0)
    pipelines = {"a": instrumented(settings), NO_BACKBONE: instrumented(settings, backbone=False)}
    delayed = DelayedEvaluation(settings, pipelines, first=0)
    run_prequential(dataset_of(rows, titles), no_text, Learner(settings, {**pipelines, DELAYED: delayed}), no_log)
    last = [n for n, title in enumerate(delayed.recorded.titles) if title == "8"]
    assert len(last) == 3
    for ranks in delayed.recorded.ranks.values():  # two other titles were unseen when the list was made
        assert [ranks[n] for n in last] == [1, 1, 1]
    assert max(delayed.recorded.ranks["a"]) > 1


def test_tasks_are_by_liking_genre_and_novelty() -> None:
    rows = [("u", item, START_S + n, rating) for n, (item, rating) in enumerate([("a", 5), ("b", 1), ("c", 3.5)])]
    titles = [("a", "A", ["X", "Y"]), ("b", "B", ["X"]), ("c", "C", ["Z"])]
    events = Table("events", pd.DataFrame(rows, columns=["user", "item", "ts", "rating"]))
    described = pd.DataFrame(titles, columns=["item", "title", "genres"])
    data = from_tables(events, Table("titles", described), name="made up")
    recorded = ScoredEvents()
    for n, seen in enumerate((0, 9, 10)):
        event = data.event(n)
        recorded.add(RankedEvent(event.user, event.title, event.ts, seen, n, {}), {})
    found = {task: inside.tolist() for task, inside in scaling.task_masks(data, recorded).items()}
    assert found == {
        "next event": [True, True, True],
        "liked": [True, False, False],
        "not liked": [False, True, True],
        "X": [True, True, False],
        "Y": [True, False, False],
        "Z": [False, False, True],
        "new titles": [True, True, False],
    }
    plain = dataset_of([(1, 2, START_S), (1, 3, START_S + 9)])
    recorded = ScoredEvents()
    recorded.add(RankedEvent("1", "2", START_S * 1000, 0, 0, {}), {})
    assert list(scaling.task_masks(plain, recorded)) == ["next event", "new titles"]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    network = replace(SETTINGS.sequence.network, heads=1)
    settings = replace(SETTINGS, sequence=replace(SETTINGS.sequence, network=network))
    sizes = ("16x1", "4x1", "8x1", "12x2", "32x2")
    return scaling.report(simulate(24, 120, 640), no_text, settings, no_log, sizes, seeds=2)


def test_report_is_consistent(found: dict[str, Any]) -> None:
    assert list(found["sizes"]) == ["4x1", "8x1", "16x1", "12x2", "32x2"]
    assert found["current_size"] == "16x1"
    assert found["scored"] == found["tasks"]["next event"]["events"] == 512
    late = found["tasks"]["delayed by 2 events"]
    assert 100 <= late["events"] <= 128
    for of in (found["tasks"]["next event"], late):
        for order in (BACKBONE_ONLY, FINAL_LISTS):
            mrr, seeds, less = (of[order][key] for key in ("mrr", "by_seed", "gain_of_largest"))
            assert mrr["8x1"] == pytest.approx(np.mean(seeds["8x1"]))
            assert less["8x1"]["mean"] == pytest.approx(mrr["32x2"] - mrr["8x1"])
            assert less["8x1"]["low"] <= less["8x1"]["mean"] <= less["8x1"]["high"]
        assert NO_BACKBONE in of[FINAL_LISTS]["mrr"]
        assert NO_BACKBONE not in of[BACKBONE_ONLY]["mrr"]
    parts = [found["tasks"][task]["events"] for task in ("liked", "not liked")]
    assert sum(parts) == 512


def test_report_is_readable_and_drawable(found: dict[str, Any], tmp_path: Path) -> None:
    write(found, tmp_path / "scaling.json")
    assert json.loads((tmp_path / "scaling.json").read_text())["tasks"] == found["tasks"]
    text = "\n".join(scaling_report.lines(found))
    of = found["tasks"]["next event"][FINAL_LISTS]
    assert f"{of['mrr']['12x2']:.4f}" in text
    gain = of["gain_of_largest"]["16x1"]
    assert f"32x2 less 16x1 {gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]" in text
    assert f"32x2 less {NO_BACKBONE} " in text
    assert f"growing beyond {scaling_report.growth_verdict(of)['size']}" in text
    scaling_report.draw(found, tmp_path / "scaling.png")
    assert len(np.unique(image.imread(tmp_path / "scaling.png").reshape(-1, 4), axis=0)) > 20


def test_command_runs_on_a_csv_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(n % 5, (n * 7) % 13, START_S + 600 * n) for n in range(60)]
    pd.DataFrame(rows, columns=["user", "item", "ts"]).to_csv("e.csv", index=False)
    arguments = ["scaling", "--events", "e.csv", "--report", "r.json", "--figure", "f.png", "--seeds", "1"]
    sizes = ["8x1", "16x1", "24x1", "32x1", "32x2"]
    result = CliRunner().invoke(app, [*arguments, *(word for size in sizes for word in ("--size", size))])
    assert result.exit_code == 0, result.output
    assert "No task has enough events" in result.output
    assert list(json.loads(Path("r.json").read_text())["sizes"]) == sizes
    wrong = CliRunner().invoke(app, [*arguments, "--size", "8x1"])
    assert (wrong.exit_code, wrong.stderr[:28]) == (1, "premiere: A law of three con")
