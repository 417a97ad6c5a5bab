"""Leave-one-out: the split, early stopping, and ranks that are known by construction."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from infra.cli.main import app
from infra.errors import SettingsError
from infra.experiments import leave_one_out as loo
from infra.experiments.leave_one_out import EpochSettings
from infra.experiments.user_sequences import UserSequences
from model.sequence.batch_training import build_catalog, rank_targets
from model.sequence.model import SequenceModel
from model.settings import NetworkSettings
from tests.support.evaluation import SILENT
from tests.support.figures import axes_of, labeled_lines

SMALL = replace(
    loo.SEQUENCE,
    network=NetworkSettings(width=16, heads=2, max_history=12, horizons=(0,), dropout=0.0, time_bias=False),
)
QUICK = EpochSettings(step_windows=16, max_epochs=12, patience=12)
TITLES = 24


def ring(users: int = 48, length: int = 8) -> UserSequences:
    """Every user walks around the same ring of titles from a different start, so the next title is determined."""
    walks = {f"u{u}": (np.arange(length) + u) % TITLES for u in range(users)}
    names = [f"t{v}" for v in range(TITLES)]
    return UserSequences("ring", True, names, [""] * TITLES, walks)


def run(sequences: UserSequences, settings: EpochSettings = QUICK) -> dict[str, object]:
    return loo.report(sequences, None, SILENT, SMALL, settings)


@pytest.mark.learned
def test_model_predicts_ring_and_popularity_does_not() -> None:
    found = run(ring())
    assert isinstance(found["test"], dict)
    assert isinstance(found["popularity"], dict)
    assert found["test"]["ndcg10"] > 0.95
    assert found["popularity"]["ndcg10"] < 0.5
    json.dumps(found)


def test_last_two_titles_are_held_out() -> None:
    title_L = np.array([4, 2, 7, 1, 3])
    parts = loo.split(
        UserSequences("x", True, list("abcdefgh"), [""] * 8, {"long": title_L, "short": np.array([5, 6])})
    )
    assert {user: o.tolist() for user, o in parts.train.items()} == {"long": [4, 2, 7], "short": [5, 6]}
    (validation, of_validation), (test, of_test) = parts.held_out["validation"], parts.held_out["test"]
    assert [(u, o.tolist()) for u, o in validation] == [("long", [4, 2, 7])]
    assert [(u, o.tolist()) for u, o in test] == [("long", [4, 2, 7, 1])]
    assert (of_validation, of_test) == ([1], [3])
    assert parts.count_V.tolist() == [0, 0, 1, 0, 1, 1, 1, 1]


def test_test_targets_do_not_affect_training() -> None:
    walks = ring()
    other = {user: np.concatenate([o[:-1], [(o[-1] + 9) % TITLES]]) for user, o in walks.sequences.items()}
    found, changed = run(walks), run(replace(walks, sequences=other))
    for name in ("validation", "settings"):
        assert found[name] == changed[name]
    losses = [[point["loss"] for point in one["curve"]] for one in (found, changed)]  # type: ignore[attr-defined]
    assert losses[0] == losses[1]
    assert found["test"] != changed["test"]


@pytest.mark.learned
def test_early_stopping_keeps_best_epoch() -> None:
    shuffled = np.random.default_rng(3).permuted(np.tile(np.arange(TITLES), (40, 1)), axis=1)[:, :8]
    noise = UserSequences("noise", True, [f"t{v}" for v in range(TITLES)], [""] * TITLES, dict(by_user(shuffled)))
    found = run(noise, EpochSettings(step_windows=16, max_epochs=50, patience=3))
    curve, best = found["curve"], found["best"]
    assert isinstance(curve, list)
    assert isinstance(best, dict)
    assert best["ndcg10"] == max(point["ndcg10"] for point in curve)
    assert curve[-1]["epoch"] == best["epoch"] + 3 < 50
    catalog = build_catalog(noise.titles, np.zeros((TITLES, 256), np.float32), loo.split(noise).count_V)
    model = SequenceModel(replace(SMALL, network=replace(SMALL.network, use_text=False)), 0)
    until = EpochSettings(step_windows=16, max_epochs=int(best["epoch"]), patience=50)
    loo.fit(model, catalog, loo.split(noise), until, SILENT)
    assert loo.metrics(rank_targets(model, catalog, *loo.split(noise).held_out["test"])) == found["test"]


def by_user(rows: NDArray[np.int64]) -> list[tuple[str, NDArray[np.int64]]]:
    return [(f"u{u}", row) for u, row in enumerate(rows)]


def test_time_limit_ends_training_after_an_epoch() -> None:
    found = run(ring(), replace(QUICK, max_seconds=0.0))
    assert len(found["curve"]) == 1  # type: ignore[arg-type]


def test_popularity_baseline_excludes_seen_titles() -> None:
    users = {"a": [0, 1, 9, 9], "b": [1, 2, 9, 9], "c": [1, 0, 8, 2]}
    walks = {user: np.array(order) for user, order in users.items()}
    parts = loo.split(UserSequences("x", True, [f"t{v}" for v in range(10)], [""] * 10, walks))
    parts = replace(parts, held_out={"test": ([("c", np.array([1, 0, 8]))], [2])})
    assert parts.count_V.tolist() == [2, 3, 1, 0, 0, 0, 0, 0, 0, 0]
    assert loo.popularity_baseline(parts)["mrr"] == 1.0  # titles 0 and 1 are more popular, and seen


def test_split_needs_a_user_with_three_titles() -> None:
    with pytest.raises(SettingsError, match="3 titles"):
        loo.split(UserSequences("x", True, ["a", "b"], ["", ""], {"u": np.array([0, 1])}))


@pytest.mark.parametrize("arguments", [["evaluate", "--figure", "f.png"], ["leave-one-out", "--repeats"]], ids=" ".join)
def test_options_of_the_other_evaluation_are_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_lines_have_inputs_and_no_published_results_of_other_data() -> None:
    found = run(ring(20), replace(QUICK, max_epochs=2))
    text = "\n".join(loo.lines(found))
    assert "ids only" in text
    assert "published" not in text  # published results are for another dataset


def test_figure_has_validation_curve_test_and_published_results(tmp_path: Path) -> None:
    curve = [{"epoch": epoch, "seconds": 60.0 * epoch, "ndcg10": 0.1 * epoch, "loss": 1.0} for epoch in (1, 2, 3)]
    found: dict[str, Any] = {"data": "ml-1m", "threads": 2, "curve": curve, "best": curve[1], "test": {"ndcg10": 0.15}}
    found["published"] = loo.PUBLISHED
    with axes_of(loo.draw, found) as (axes,):
        lines = labeled_lines(axes)
        np.testing.assert_allclose(lines["validation"], [[1.0, 2.0, 3.0], [0.1, 0.2, 0.3]])
        assert lines["test, best epoch"].tolist() == [[2], [0.15]]
        published = {name: lines[f"{name} (published, test)"][1].tolist() for name in loo.PUBLISHED}
        assert published == {name: [ndcg, ndcg] for name, (ndcg, _) in loo.PUBLISHED.items()}
        assert axes.get_xlabel() == "minutes on 2 threads"
    loo.draw(found, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
