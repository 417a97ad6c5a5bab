"""A sweep of tiny sizes: the sizes, the tasks, delayed lists and the report."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from infra.cli.main import app
from infra.data.datasets import from_tables
from infra.data.simulate import simulate
from infra.data.tables import Table
from infra.errors import SettingsError
from infra.experiments import scaling
from infra.experiments.backbone_ranks import BACKBONE_ONLY, FINAL_LISTS
from infra.experiments.evaluate import write
from infra.experiments.flops import parameters
from infra.experiments.harness import ScoredEvents, run_prequential
from infra.experiments.scaling import NO_BACKBONE, DelayedLists, parse_size, sweep
from model.learner import Learner, RankedEvent
from model.pipeline import RankingRequest, new_pipeline
from model.settings import PRESETS, BackboneSize, LearnerSettings, preset
from model.signals.snapshot import take_snapshot
from model.state.stream_state import History
from tests.support.evaluation import SETTINGS, SILENT, START_S, dataset_of, no_text


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
    pipelines = {name: new_pipeline(settings) for name in ("a", "b")}
    delayed = DelayedLists(settings, {"a": pipelines["a"]}, first=32)
    recorded = run_prequential(data, no_text, Learner(settings, pipelines), SILENT, [delayed])
    assert recorded.ranks["a"] == recorded.ranks["b"]
    assert 0 < len(delayed.recorded) < len(recorded) / 3
    learner = Learner(settings)
    history = History("u", np.arange(9), np.arange(9) * 1000, np.ones(9, np.int64))
    requests = [RankingRequest(history.before(k), 1000 * k, k, 1, 0, k) for k in range(9)]
    delayed = DelayedLists(settings, {}, first=0)
    delayed.on_prepared(take_snapshot(learner.stream_state), [history], requests)
    assert {n: (context.history.rows_L.tolist(), context.made_at) for n, context in delayed.contexts.items()} == {
        4: ([0, 1], 1000),  # two events ago; event 0 has no history, and the others are not sampled
        8: ([0, 1, 2, 3, 4, 5], 5000),
    }


def test_delayed_list_removes_titles_seen_since() -> None:
    rows = [(user, item, START_S + 600 * (9 * user + item)) for user in range(9) for item in range(9)]
    titles = [{"item": item, "title": f"t{item}", "launched_ts": START_S - 300} for item in range(9)]
    settings = replace(SETTINGS, delayed_query_share=0.0)
    pipelines = {"a": new_pipeline(settings), NO_BACKBONE: new_pipeline(settings, backbone=False)}
    delayed = DelayedLists(settings, pipelines, first=0)
    run_prequential(dataset_of(rows, titles), no_text, Learner(settings, pipelines), SILENT, [delayed])
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
    return scaling.report(simulate(24, 120, 640), no_text, settings, SILENT, sizes, seeds=2)


def test_report_is_consistent(found: dict[str, Any], tmp_path: Path) -> None:
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
    write(found, tmp_path / "scaling.json")
    assert json.loads((tmp_path / "scaling.json").read_text())["tasks"] == found["tasks"]


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
    assert (wrong.exit_code, wrong.stderr[:28]) == (2, "premiere: A law of three con")
