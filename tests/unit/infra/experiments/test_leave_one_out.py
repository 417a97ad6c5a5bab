"""Leave-one-out: what is learned, what stops, what is asked once, and ranks that are known by construction."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from benchmarks.epochs import rows_of, split_file
from infra.cli.main import app
from infra.data.datasets import load
from infra.data.tables import DataError
from infra.errors import SettingsError
from infra.experiments import leave_one_out as loo
from infra.experiments import user_sequences
from infra.experiments.leave_one_out import EpochSettings
from infra.experiments.user_sequences import Orders
from model.sequence.batch_training import catalog_of, history_of, ranks
from model.sequence.model import SequenceModel
from model.sequence.network import NetworkSettings
from tests.support.evaluation import checkerboard

SMALL = replace(
    loo.SEQUENCE, network=NetworkSettings(width=16, heads=2, history=12, horizons=(0,), dropout=0.0, time_bias=False)
)
QUICK = EpochSettings(windows=16, most=12, patience=12)
TITLES = 24


def quiet(_line: str) -> None:
    """Progress that nobody reads."""


def around(users: int = 48, length: int = 8) -> Orders:
    """Everybody walks around the same ring of titles from a place of their own: the next title is known."""
    walks = {f"u{u}": (np.arange(length) + u) % TITLES for u in range(users)}
    names = [f"t{v}" for v in range(TITLES)]
    return Orders("ring", True, names, [""] * TITLES, walks)


def told(orders_: Orders, settings: EpochSettings = QUICK) -> dict[str, object]:
    return loo.report(orders_, None, quiet, SMALL, settings)


def test_the_next_title_of_a_ring_is_found_and_popularity_cannot_find_it() -> None:
    found = told(around())
    assert isinstance(found["test"], dict)
    assert isinstance(found["popularity"], dict)
    assert found["test"]["ndcg10"] > 0.95
    assert found["popularity"]["ndcg10"] < 0.5
    json.dumps(found)


def test_last_titles_are_asked_for_and_never_learned() -> None:
    order_L = np.array([4, 2, 7, 1, 3])
    parts = loo.split(Orders("x", True, list("abcdefgh"), [""] * 8, {"long": order_L, "short": np.array([5, 6])}))
    assert {user: o.tolist() for user, o in parts.train.items()} == {"long": [4, 2, 7], "short": [5, 6]}
    (validation, of_validation), (test, of_test) = parts.asked["validation"], parts.asked["test"]
    assert [(u, o.tolist()) for u, o in validation] == [("long", [4, 2, 7])]
    assert [(u, o.tolist()) for u, o in test] == [("long", [4, 2, 7, 1])]
    assert (of_validation, of_test) == ([1], [3])
    assert parts.count_V.tolist() == [0, 0, 1, 0, 1, 1, 1, 1]


def test_what_the_test_titles_are_changes_nothing_that_is_learned_or_where_it_stops() -> None:
    walks = around()
    other = {user: np.concatenate([o[:-1], [(o[-1] + 9) % TITLES]]) for user, o in walks.users.items()}
    found, again = told(walks), told(replace(walks, users=other))
    for name in ("validation", "settings"):
        assert found[name] == again[name]
    losses = [[look["loss"] for look in one["curve"]] for one in (found, again)]  # type: ignore[attr-defined]
    assert losses[0] == losses[1]
    assert found["test"] != again["test"]


def test_training_ends_when_validation_gets_no_better_and_the_best_epoch_is_kept() -> None:
    shuffled = np.random.default_rng(3).permuted(np.tile(np.arange(TITLES), (40, 1)), axis=1)[:, :8]
    noise = Orders("noise", True, [f"t{v}" for v in range(TITLES)], [""] * TITLES, dict(enumerate_(shuffled)))
    found = told(noise, EpochSettings(windows=16, most=50, patience=3))
    curve, best = found["curve"], found["best"]
    assert isinstance(curve, list)
    assert isinstance(best, dict)
    assert best["ndcg10"] == max(look["ndcg10"] for look in curve)
    assert curve[-1]["epoch"] == best["epoch"] + 3 < 50
    catalog = catalog_of(noise.titles, np.zeros((TITLES, 256), np.float32), loo.split(noise).count_V)
    model = SequenceModel(replace(SMALL, network=replace(SMALL.network, semantic=False)), 0)
    until = EpochSettings(windows=16, most=int(best["epoch"]), patience=50)
    loo.fit(model, catalog, loo.split(noise), until, quiet)
    assert loo.measures(ranks(model, catalog, *loo.split(noise).asked["test"])) == found["test"]


def enumerate_(rows: NDArray[np.int64]) -> list[tuple[str, NDArray[np.int64]]]:
    return [(f"u{u}", row) for u, row in enumerate(rows)]


def test_time_that_is_over_ends_training_after_an_epoch() -> None:
    found = told(around(), replace(QUICK, seconds=0.0))
    assert len(found["curve"]) == 1  # type: ignore[arg-type]


def test_ranks_are_among_titles_that_are_not_in_the_order() -> None:
    model = SequenceModel(SMALL, 0)
    catalog = catalog_of([f"t{v}" for v in range(5)], np.zeros((5, 256), np.float32), np.ones(5, np.int64))
    order_L = np.array([0, 3, 1])
    both = ranks(model, catalog, [("u", order_L)] * 2, [2, 4])
    assert sorted(both.tolist()) == [1, 2]


def test_a_history_is_the_end_of_an_order() -> None:
    history = history_of("u", np.arange(9), 4)
    assert history.rows_L.tolist() == [5, 6, 7, 8]
    assert len(history.actions_L) == len(history.times_L) == 4


def test_popularity_ranks_by_events_in_training_less_what_was_seen() -> None:
    users = {"a": [0, 1, 9, 9], "b": [1, 2, 9, 9], "c": [1, 0, 8, 2]}
    walks = {user: np.array(order) for user, order in users.items()}
    parts = loo.split(Orders("x", True, [f"t{v}" for v in range(10)], [""] * 10, walks))
    parts = replace(parts, asked={"test": ([("c", np.array([1, 0, 8]))], [2])})
    assert parts.count_V.tolist() == [2, 3, 1, 0, 0, 0, 0, 0, 0, 0]
    assert loo.popularity(parts)["mrr"] == 1.0  # titles 0 and 1 are more popular, and seen


def test_nobody_with_three_titles_is_an_answer() -> None:
    with pytest.raises(SettingsError, match="3 titles"):
        loo.split(Orders("x", True, ["a", "b"], ["", ""], {"u": np.array([0, 1])}))


def written(folder: Path, rows: Sequence[dict[str, object]]) -> Path:
    pd.DataFrame(rows).to_csv(folder / "e.csv", index=False)
    return folder / "e.csv"


def test_rows_of_one_second_keep_the_order_of_the_file_and_a_title_counts_once(tmp_path: Path) -> None:
    rows = [("u", "c", 20), ("u", "b", 10), ("v", "b", 5), ("u", "a", 20), ("u", "b", 30)]
    file = written(tmp_path, [{"user": u, "item": i, "ts": t} for u, i, t in rows])
    found = user_sequences.load(file)
    named = {user: [found.titles[v] for v in order_L] for user, order_L in found.users.items()}
    assert named == {"u": ["b", "c", "a"], "v": ["b"]}
    assert (len(found), found.name, found.texts) == (4, "e", ["", "", ""])


def test_a_place_goes_before_the_file_s_order_and_texts_come_with_titles(tmp_path: Path) -> None:
    rows = [("u", "c", 2), ("v", "b", 0), ("u", "a", 0), ("u", "b", 1)]
    file = written(tmp_path, [{"user": u, "item": i, "pos": p} for u, i, p in rows])
    titles = tmp_path / "t.csv"
    pd.DataFrame({"item": ["a", "c"], "title": ["Alpha", "Gamma"], "genres": ["War", ""]}).to_csv(titles, index=False)
    found = user_sequences.load(file, titles)
    assert [found.titles[v] for v in found.users["u"]] == ["a", "b", "c"]
    assert dict(zip(found.titles, found.texts, strict=True)) == {"a": "Alpha. War", "b": "", "c": "Gamma"}


def test_what_was_only_shown_or_disliked_is_not_taken(tmp_path: Path) -> None:
    rows = [("u", "a", 1, "impression"), ("u", "b", 2, "click"), ("u", "c", 3, "dislike"), ("u", "a", 4, "play")]
    rows += [("v", "d", 5, "impression"), ("u", "e", 6, "play")]
    file = written(tmp_path, [{"user": u, "item": i, "ts": t, "action": a} for u, i, t, a in rows])
    found = user_sequences.load(file)
    assert {u: [found.titles[v] for v in order_L] for u, order_L in found.users.items()} == {"u": ["b", "a", "e"]}
    assert len(user_sequences.load(file, limit=2)) == 2
    stream = user_sequences.of(load(file))
    assert {u: [stream.titles[v] for v in order_L] for u, order_L in stream.users.items()} == {"u": ["b", "a", "e"]}


def test_options_of_the_other_protocol_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path, [{"user": "u", "item": i, "ts": t} for t, i in enumerate("abc")])
    other = ["evaluate", "--events", str(file), "--figure", str(tmp_path / "f.png")]
    assert "leave-one-out" in CliRunner().invoke(app, other).output
    both = ["evaluate", "--events", str(file), "--protocol", "leave-one-out", "--repeats"]
    assert CliRunner().invoke(app, both).exit_code == 2


def test_a_row_without_place_or_time_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pos"):
        user_sequences.load(
            written(tmp_path, [{"user": "u", "item": "a", "pos": 1}, {"user": "u", "item": "b", "pos": None}])
        )
    with pytest.raises(DataError, match="ts"):
        user_sequences.load(written(tmp_path, [{"user": "u", "item": "a"}]))


def test_a_stream_gives_its_orders_and_titles_without_an_event_are_left_out() -> None:
    data = checkerboard(320).slice(0, 100)
    found = user_sequences.of(data)
    assert set(found.titles) == {data.titles[v] for v in data.title} < set(data.titles)
    for user, order_L in found.users.items():
        mine = [data.titles[v] for v, u in zip(data.title, data.user, strict=True) if data.users[u] == user]
        assert [found.titles[v] for v in order_L] == mine
    assert len(found.texts) == len(found.titles)


def test_the_report_reads_and_draws(tmp_path: Path) -> None:
    found = told(around(20), replace(QUICK, most=2))
    shown = "\n".join(loo.lines(found))
    assert "ids alone" in shown
    assert "published" not in shown  # another set than the one they were measured on
    loo.draw(found, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5_000


def test_rivals_get_the_same_split_as_a_file(tmp_path: Path) -> None:
    walks = {"long": np.array([2, 0, 1]), "short": np.array([3])}
    parts = loo.split(Orders("x", True, list("abcd"), [""] * 4, walks))
    split_file(parts, list("abcd"), tmp_path / "split.csv")
    rows = pd.read_csv(tmp_path / "split.csv").to_numpy().tolist()
    assert rows == [
        ["long", "c", 0, "train"],
        ["short", "d", 0, "train"],
        ["long", "a", 1, "validation"],
        ["long", "b", 2, "test"],
    ]


def test_a_rival_is_told_at_its_best_and_we_from_where_its_best_is_reached() -> None:
    def look(seconds: float, ndcg: float, hr: float, test: float) -> dict[str, object]:
        validation = {"ndcg10": ndcg, "hr10": hr}
        return {"seconds": seconds, "cpu_seconds": seconds, "validation": validation, "test": {"hr10": test}}

    theirs = [look(10, 0.1, 0.30, 0.5), look(20, 0.3, 0.28, 0.2), look(30, 0.2, 0.29, 0.4)]
    curve = [{"seconds": float(s), "cpu_seconds": float(s), "hr10": hr} for s, hr in ((1, 0.1), (4, 0.3), (9, 0.4))]
    rows = rows_of("case", {"test": {"hr10": 0.25}, "curve": curve}, {"rival": theirs})
    told_ = {(one.variant, one.unit): (one.median, round(one.ratio, 6)) for one in rows}
    assert told_["rival, test HR@10", "HR@10"] == (0.2, 0.8)  # of its best validation NDCG, whatever the test
    assert told_["rival, to its best", "s"][0] == 10  # of its best validation HR
    assert told_["ours, to rival's best", "s"] == (4, 0.4)
