"""Scaling laws: curves whose end is known are found again, a flat one says so, and a sweep of tiny sizes tells all."""

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
from infra.experiments.harness import Recorded, stream, watched
from infra.experiments.scaling import LATER, WITHOUT, DelayedEvaluation, dims, sweep
from model.learner import Learner, LearnerSettings, RankedEvent
from model.metrics.bootstrap import resampled
from model.metrics.scaling_law import Floats, law, over_seeds
from model.pipeline import RankingRequest
from model.sequence.backbone import PRESETS, Dims
from model.sequence.network import preset
from model.signals import candidates
from model.state.stream_state import History
from tests.support.evaluation import SETTINGS, START, data_of, no_text

N: Final = np.array([3e3, 1e4, 9e4, 3e5, 8e5, 2e6])
P0, A, N0 = 0.31, 0.4, 200.0
CURVE: Final = P0 - (N / N0) ** -A
LINE: Final = 0.05 + 0.01 * np.log(N)


def drawn(p_S: Floats, users: int, noise: float, seed: int = 1) -> tuple[Floats, Floats]:
    """Points and draws of users whose levels differ, and who differ in each size by `noise` too."""
    random = np.random.default_rng(seed)
    value_NS = p_S + random.normal(0, 0.1, (users, 1)) + random.normal(0, noise, (users, len(p_S)))
    return value_NS.mean(0), resampled(value_NS, np.arange(users), 300)


def exact(p_S: Floats) -> dict[str, Any]:
    return law(N, p_S, np.stack([p_S, p_S]))


def test_a_law_with_a_known_end_is_found_again() -> None:
    found = exact(CURVE)
    assert found["p0"]["fit"] == pytest.approx(P0, abs=5e-4)
    assert found["a"] == pytest.approx(A, rel=5e-3)
    assert found["n0"] == pytest.approx(N0, rel=2e-2)
    assert found["endless"] == 0
    twice = P0 - (2 * N / N0) ** -A
    assert [gain["mean"] for gain in found["doubling"]] == pytest.approx(twice - CURVE, rel=1e-2)


def test_from_noisy_points_the_interval_holds_the_end_and_narrows_with_users() -> None:
    widths = []
    for users in (300, 30_000):
        found = law(N, *drawn(CURVE, users, 0.1))
        low, high = found["p0"]["low"], found["p0"]["high"]
        assert low < P0 < high
        widths.append(high - low)
    assert widths[1] < 0.3 * widths[0]


def test_a_curve_that_ends_and_one_that_does_not_are_told_apart() -> None:
    ends, goes_on = exact(CURVE), exact(LINE)
    assert ends["rmse"]["offset"] < 0.01 * ends["rmse"]["log-linear"]
    assert ends["left_out"]["offset"] < 0.01 * ends["left_out"]["log-linear"]
    assert goes_on["rmse"]["log-linear"] < 1e-9
    assert goes_on["left_out"]["log-linear"] < 1e-9 < goes_on["left_out"]["offset"]
    assert (goes_on["p0"]["fit"], goes_on["p0"]["high"], goes_on["endless"]) == (None, None, 1.0)


@pytest.mark.parametrize("p_S", [np.full(6, 0.25), np.linspace(0.3, 0.2, 6)])
def test_what_does_not_grow_has_its_mean_for_an_end(p_S: Floats) -> None:
    found = exact(p_S)
    assert found["p0"]["fit"] == pytest.approx(0.25)
    assert (found["a"], found["n0"]) == (None, None)
    assert all(gain["high"] == 0 for gain in found["doubling"])


def test_seeds_that_differ_widen_the_draws_as_far_as_their_mean_can_stray() -> None:
    runs_SK = np.random.default_rng(2).normal(0.3, 0.02, (6, 4))
    p_DS = over_seeds(np.repeat(runs_SK[None], 4000, 0))
    assert p_DS.mean(0) == pytest.approx(runs_SK.mean(1), abs=1e-3)
    assert p_DS.std(0) == pytest.approx(runs_SK.std(1, ddof=1) / 2, rel=0.05)
    one_DSK = runs_SK[None, :, :1]
    assert np.array_equal(over_seeds(one_DSK), one_DSK[..., 0])


def told(p_S: Floats, users: int, noise: float) -> tuple[str, str]:
    """What is said of a task: whether bigger is worth it, and of the end."""
    names = [f"s{k}" for k in range(len(N))]
    sizes = {name: {"parameters": int(N[k]), "seconds": 2.0 * (k + 1)} for k, name in enumerate(names)}
    points_S, p_DS = drawn(p_S, users, noise)
    of = {"mrr": dict(zip(names, points_S.tolist(), strict=True)), "law": law(N, points_S, p_DS)}
    return scaling_report.worth(of, {"sizes": sizes}), scaling_report.end(of)


def test_words_follow_from_intervals() -> None:
    worth, end = told(np.full(6, 0.3), 20_000, 0.02)
    assert worth.startswith("bigger than s0 (3,000 parameters) is not worth it: doubling it gains +0.00")
    assert worth.endswith("less than 1% of its MRR; s5 takes 6.0 times its seconds")
    worth, end = told(np.linspace(0.3, 0.29, 6), 20_000, 0.02)
    assert worth.startswith("bigger than s0 (3,000 parameters) is not worth it: doubling it gains +0.0000")
    assert end.startswith("the fit does not grow with size (P0 0.29")
    worth, end = told(0.3 - 0.2 * (N / N[0]) ** -0.6, 20_000, 0.02)
    assert worth.startswith("bigger than s4 (800,000 parameters) is not worth it")  # at s3 1 % is .0029, the gain .0043
    assert end.startswith(("growth ends at P0 0.29", "growth ends at P0 0.30"))
    worth, end = told(LINE, 20_000, 0.01)
    assert worth.startswith("bigger pays: doubling s5 would gain +0.00")
    assert end.startswith("where growth ends cannot be said")
    assert "show no end" in end
    over = {"mrr": {"s": 0.9}, "law": {"p0": {"fit": 1.01, "low": 0.95, "high": 1.1}, "a": 0.3}}
    assert scaling_report.end(over).endswith("what passes 1 is slack of the fit, for no MRR does")  # second hand: 1.075
    worth, end = told(LINE, 20, 0.2)
    assert worth.startswith("these events cannot tell whether bigger than s5 pays")
    assert end.startswith("where growth ends cannot be said")


def test_sizes_go_by_name() -> None:
    assert dims("64x2") == Dims(64, 2, 2) == PRESETS["cpu"]
    assert dims("16x1") == Dims(16, 1, 1)
    assert dims("50m") == PRESETS["50m"]
    for name in ("large", "64x", "x2", "0x1", "-8x1", "65x1"):
        with pytest.raises(SettingsError, match=name):
            dims(name)


def test_a_sweep_changes_the_backbone_alone_and_goes_from_small_to_large() -> None:
    found = sweep(["2m", "64x2", "16x1", "96x3", "10m"], LearnerSettings())
    assert list(found) == ["16x1", "64x2", "96x3", "2m", "10m"]
    assert found["64x2"] == LearnerSettings()
    assert parameters(preset("1b")) == 1_015_218_624  # as docs/scaling.md has it; no memory is taken
    network = found["10m"].sequence.network
    assert (network.width, network.blocks, network.heads) == (320, 9, 5)
    same = replace(network, width=64, blocks=2, heads=2)
    assert replace(found["10m"], sequence=replace(found["10m"].sequence, network=same)) == LearnerSettings()
    for few in (["2m", "64x2", "16x1", "96x3"], ["2m", "64x2", "cpu", "16x1", "96x3", "32x1"]):
        with pytest.raises(SettingsError, match="5 sizes or more"):
            sweep(few, LearnerSettings())


def test_late_questions_know_what_was_known_some_events_ago_and_nobody_learns_from_them() -> None:
    settings = replace(SETTINGS, delayed=0.0)
    data = simulate(8, 40, 160)
    whole = {name: watched(settings) for name in ("a", "b")}
    later = DelayedEvaluation(settings, {"a": whole["a"]}, first=32)
    recorded = stream(data, no_text, Learner(settings, {**whole, LATER: later}), lambda _line: None)
    assert recorded.ranks["a"] == recorded.ranks["b"]
    assert 0 < len(later.recorded) < len(recorded) / 3
    learner = Learner(settings)
    history = History("u", np.arange(9), np.arange(9) * 1000, np.ones(9, np.int64))
    requests = [RankingRequest(history.before(k), 1000 * k, k, 1, 0, k) for k in range(9)]
    later = DelayedEvaluation(settings, {}, first=0)
    later.prepare(candidates.view(learner.stream_state), [history], requests)
    assert {n: (late.history.rows_L.tolist(), late.now) for n, late in later.late.items()} == {
        4: ([0, 1], 1000),  # two events ago; event 0 has no past, and the others' turn is not come
        8: ([0, 1, 2, 3, 4, 5], 5000),
    }


def test_where_all_but_one_title_was_taken_since_an_old_list_is_right() -> None:
    rows = [(user, item, START + 600 * (9 * user + item)) for user in range(9) for item in range(9)]
    titles = [{"item": item, "title": f"t{item}", "launched_ts": START - 300} for item in range(9)]
    settings = replace(SETTINGS, delayed=0.0)
    watching = {"a": watched(settings), WITHOUT: watched(settings, backbone=False)}
    later = DelayedEvaluation(settings, watching, first=0)
    stream(data_of(rows, titles), no_text, Learner(settings, {**watching, LATER: later}), lambda _line: None)
    last = [n for n, title in enumerate(later.recorded.titles) if title == "8"]
    assert len(last) == 3
    for ranks in later.recorded.ranks.values():  # two others were open when the list was made
        assert [ranks[n] for n in last] == [1, 1, 1]
    assert max(later.recorded.ranks["a"]) > 1


def test_tasks_are_by_what_was_done_and_by_genre() -> None:
    rows = [("u", item, START + n, rating) for n, (item, rating) in enumerate([("a", 5), ("b", 1), ("c", 3.5)])]
    titles = [("a", "A", ["X", "Y"]), ("b", "B", ["X"]), ("c", "C", ["Z"])]
    events = Table("events", pd.DataFrame(rows, columns=["user", "item", "ts", "rating"]))
    described = pd.DataFrame(titles, columns=["item", "title", "genres"])
    data = from_tables(events, Table("titles", described), name="made up")
    recorded = Recorded()
    for n, seen in enumerate((0, 9, 10)):
        event = data.event(n)
        recorded.add(RankedEvent(event.user, event.title, event.ts, seen, n, {}), {})
    found = {task: inside.tolist() for task, inside in scaling.tasks(data, recorded).items()}
    assert found == {
        "the next event": [True, True, True],
        "liked": [True, False, False],
        "not marked as liked": [False, True, True],
        "X": [True, True, False],
        "Y": [True, False, False],
        "Z": [False, False, True],
        "titles of fewer than 10 events": [True, True, False],
    }
    plain = data_of([(1, 2, START), (1, 3, START + 9)])
    recorded = Recorded()
    recorded.add(RankedEvent("1", "2", START * 1000, 0, 0, {}), {})
    assert list(scaling.tasks(plain, recorded)) == ["the next event", "titles of fewer than 10 events"]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    network = replace(SETTINGS.sequence.network, heads=1)
    settings = replace(SETTINGS, sequence=replace(SETTINGS.sequence, network=network))
    sizes = ("16x1", "4x1", "8x1", "12x2", "32x2")
    return scaling.report(simulate(24, 120, 640), no_text, settings, lambda _line: None, sizes, seeds=2)


def test_the_report_of_a_sweep_adds_up(found: dict[str, Any]) -> None:
    assert list(found["sizes"]) == ["4x1", "8x1", "16x1", "12x2", "32x2"]
    assert found["as_set"] == "16x1"
    assert found["scored"] == found["tasks"]["the next event"]["events"] == 512
    late = found["tasks"]["after the next 2 events"]
    assert 100 <= late["events"] <= 128
    for of in (found["tasks"]["the next event"], late):
        for order in ("alone", "lists"):
            mrr, seeds, less = (of[order][key] for key in ("mrr", "by_seed", "largest_less"))
            assert mrr["8x1"] == pytest.approx(np.mean(seeds["8x1"]))
            assert less["8x1"]["mean"] == pytest.approx(mrr["32x2"] - mrr["8x1"])
            assert less["8x1"]["low"] <= less["8x1"]["mean"] <= less["8x1"]["high"]
        assert WITHOUT in of["lists"]["mrr"]
        assert WITHOUT not in of["alone"]["mrr"]
    parts = [found["tasks"][task]["events"] for task in ("liked", "not marked as liked")]
    assert sum(parts) == 512


def test_the_report_can_be_read_and_seen(found: dict[str, Any], tmp_path: Path) -> None:
    write(found, tmp_path / "scaling.json")
    assert json.loads((tmp_path / "scaling.json").read_text())["tasks"] == found["tasks"]
    text = "\n".join(scaling_report.lines(found))
    of = found["tasks"]["the next event"]["lists"]
    assert f"{of['mrr']['12x2']:.4f}" in text
    gain = of["largest_less"]["16x1"]
    assert f"32x2 less 16x1 {gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]" in text
    assert f"32x2 less {WITHOUT} " in text
    assert scaling_report.worth(of, found) in text
    scaling_report.draw(found, tmp_path / "scaling.png")
    assert len(np.unique(image.imread(tmp_path / "scaling.png").reshape(-1, 4), axis=0)) > 20


def test_the_command_runs_on_a_users_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(n % 5, (n * 7) % 13, START + 600 * n) for n in range(60)]
    pd.DataFrame(rows, columns=["user", "item", "ts"]).to_csv("e.csv", index=False)
    asked = ["scaling", "--events", "e.csv", "--report", "r.json", "--figure", "f.png", "--seeds", "1"]
    sizes = ["8x1", "16x1", "24x1", "32x1", "32x2"]
    result = CliRunner().invoke(app, [*asked, *(word for size in sizes for word in ("--size", size))])
    assert result.exit_code == 0, result.output
    assert "No task has enough events" in result.output
    assert list(json.loads(Path("r.json").read_text())["sizes"]) == sizes
    wrong = CliRunner().invoke(app, [*asked, "--size", "8x1"])
    assert (wrong.exit_code, wrong.stderr[:28]) == (1, "premiere: A law of three con")
