"""The evidence on small data: what is recorded, rows that differ in what they name, parts that are taken up again."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import image

from infra.cli import experiments
from infra.data.datasets import DataSet
from infra.experiments import ablations, coldstart, other_streams, results, results_page
from infra.experiments.ablations import DEFAULT, Row
from infra.experiments.harness import ALONE, Recorded, stream, watched
from infra.experiments.reports import REPORT_PARTS
from model.learner import Learner, RankedEvent, new_pipeline
from model.signals.ranker import Ranker
from model.signals.table import DENSE, SIGNALS
from tests.support.evaluation import SETTINGS, checkerboard, no_text

SLICES = ["all", "new_titles", "unseen_titles", "new_users"]


def quiet(_line: str) -> None:
    """Progress that nobody reads."""


@pytest.fixture(scope="module")
def data() -> DataSet:
    return checkerboard(320)


def recorded_of(rows: Sequence[tuple[str, int, int, dict[str, float]]]) -> Recorded:
    recorded = Recorded()
    for user, title_events, user_events, ranks in rows:
        recorded.add(RankedEvent(user, "t", 0, title_events, user_events, {}), ranks)
    return recorded


def test_what_is_recorded_becomes_means_pairs_and_curves() -> None:
    rows = [("a", 0, 0, {"x": 1.0, "y": 2.0}), ("a", 9, 9, {"x": 2.0, "y": math.inf})]
    rows += [("b", 10, 4, {"x": 4.0, "y": 4.0}), ("b", 50, 50, {"x": 4.0, "y": 2.0})]
    recorded = recorded_of(rows)
    assert recorded.mrr("x") == {"all": 0.5, "new_titles": 0.75, "unseen_titles": 1.0, "new_users": 0.625}
    gain = recorded.gain("x", "y")
    assert gain["all"] == {"mean": 0.1875, "low": -0.125, "high": 0.5, "events": 4, "users": 2}  # of b, of a
    assert gain["unseen_titles"] is not None
    assert gain["unseen_titles"]["mean"] == 0.5
    assert recorded.curve(["y"], points=2) == {"events": [2.0, 4.0], "y": [0.25, 0.375]}
    assert recorded.curve(points=9)["events"] == [1.0, 2.0, 3.0, 4.0]


def test_a_slice_without_events_has_no_mean_and_no_gain() -> None:
    recorded = recorded_of([("a", 20, 20, {"x": 1.0, "y": 1.0})])
    assert recorded.mrr("x") == {"all": 1.0, "new_titles": None, "unseen_titles": None, "new_users": None}
    assert recorded.gain("x", "y")["new_users"] is None


def test_watching_changes_no_rank_and_a_lent_backbone_is_the_same_one(data: DataSet) -> None:
    plain = stream(data, no_text, Learner(SETTINGS, {"full": new_pipeline(SETTINGS)}), quiet)
    watching = watched(SETTINGS)
    borrower = ablations.pipeline(Row("same", lend=True), SETTINGS, watching)
    seen = stream(data, no_text, Learner(SETTINGS, {"full": watching, "borrower": borrower}), quiet)
    assert len(plain) == len(seen) == 256  # the first fifth is not kept
    assert seen.ranks["full"] == plain.ranks["full"]
    assert seen.ranks["borrower"] == plain.ranks["full"]
    assert "borrower" + ALONE not in seen.ranks
    assert watching.seconds > 0


def test_a_backbone_alone_ranks_among_what_its_user_has_not_seen(data: DataSet) -> None:
    recorded = stream(data, no_text, Learner(SETTINGS, {"full": watched(SETTINGS)}), quiet)
    alone = recorded.ranks["full" + ALONE]
    assert len(alone) == len(recorded)
    left = [60 - events for events in recorded.user_events]  # of 60 titles, none comes twice
    assert all(1 <= rank <= most for rank, most in zip(alone, left, strict=True))


def test_every_signal_is_in_one_group_and_an_unknown_one_in_other() -> None:
    found = ablations.groups()
    assert sorted(name for names in found.values() for name in names) == sorted(SIGNALS)
    assert all("backbone" in name for name in found["backbone"])
    assert ablations.groups(["popular 3", "of a new kind"]) == {
        "popularity": ("popular 3",), "other": ("of a new kind",),
    }  # fmt: skip


def test_every_row_differs_from_the_default_in_what_it_names() -> None:
    rows = [row for group in ablations.tables(0.2).values() for row in group]
    assert len({row.label for row in rows}) == len(rows)
    for row in rows:
        others = row.without, row.rankers, row.delayed
        assert row.change(SETTINGS) != SETTINGS or others != ((), 1, True), row.label
    by_label = {row.label: row.change(SETTINGS) for row in rows}
    assert by_label["no semantic tower"].sequence.network.semantic is False
    assert by_label["double the replay"].sequence.replayed == 2 * SETTINGS.sequence.replayed
    assert by_label["one horizon, no delayed questions"].sequence.network.horizons == (0,)
    assert by_label["row-wise Adagrad without decay"].sequence.optim.row_decay == 1.0
    assert by_label["counters read 25 events"].memory.history == 25


def test_hidden_signals_weigh_nothing_in_the_shortlist_either(data: DataSet) -> None:
    hidden = ("popular ever", "followed recent", "gap")
    shared_backbone = watched(SETTINGS)
    blind = ablations.pipeline(Row("blind", without=hidden, lend=True), SETTINGS, shared_backbone)
    stream(data, no_text, Learner(SETTINGS, {"full": shared_backbone, "blind": blind}), quiet)
    weights = dict(zip(DENSE, blind.ranker.weights_D.tolist(), strict=True))
    assert weights["popular ever"] == weights["followed recent"] == 0.0
    assert weights["popular 0"] != 0.0


def test_rankers_are_averaged() -> None:
    averaged = ablations.Averaged(SETTINGS, 3)
    signals = np.random.default_rng(1).normal(size=(5, len(SIGNALS))).astype(np.float32)
    for one in (averaged, *averaged.others):
        one.steps = 1  # as if it had learned: its network counts
    each = [one.score(signals) for one in averaged.others]
    first = 3 * averaged.score(signals) - sum(each)
    own = Ranker(SETTINGS.ranker, SETTINGS.seed)
    own.steps = 1
    np.testing.assert_allclose(first, own.score(signals), rtol=1e-4, atol=1e-5)
    assert not np.allclose(each[0], each[1])


def test_rows_stand_beside_the_default_that_they_are_measured_against(data: DataSet) -> None:
    rows = [Row("no replay", ablations.replayed(0)), Row("apart", ablations.counters(history=2), apart=True)]
    found = ablations.run(rows, data, no_text, SETTINGS, quiet)
    assert list(found) == [DEFAULT, "no replay", "apart"]
    assert found[DEFAULT]["gain"]["all"]["mean"] == 0.0
    for row in found.values():
        assert list(row["mrr"]) == SLICES
        assert row["gain"]["all"]["mean"] == pytest.approx(row["mrr"]["all"] - found[DEFAULT]["mrr"]["all"])
        assert row["alone_gain"]["all"]["mean"] == pytest.approx(row["alone"]["all"] - found[DEFAULT]["alone"]["all"])
    assert found["no replay"]["alone"]["all"] != found[DEFAULT]["alone"]["all"]
    assert found["apart"]["alone"]["all"] == found[DEFAULT]["alone"]["all"]  # the backbone does not read counters


def test_groups_become_one_table_if_they_are_of_one_run() -> None:
    one, other = ({"mrr": {"all": value}} for value in (0.5, 0.25))
    assert list(ablations.merged({"a": {DEFAULT: one, "x": other}, "b": {DEFAULT: one, "y": one}})) == [
        DEFAULT, "x", "y",
    ]  # fmt: skip
    with pytest.raises(AssertionError, match="different runs"):
        ablations.merged({"a": {DEFAULT: one}, "b": {DEFAULT: other}})


def test_no_interval_that_holds_zero_is_called_a_gain() -> None:
    gain = {"mean": 0.002, "low": -0.001, "high": 0.005, "events": 1200, "users": 30}
    assert "no difference" in results_page.sentence("a", "b", gain)
    assert "a lies above b by .0020" in results_page.sentence("a", "b", gain | {"low": 0.001})
    assert "a lies below b by .0020" in results_page.sentence("a", "b", gain | {"mean": -0.002, "high": -0.001})
    assert results_page.signed(gain) == "+.0020 [-.0010, +.0050]"


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory, data: DataSet) -> Path:
    path = tmp_path_factory.mktemp("data") / "events.csv"
    rows = [data.event(k) for k in range(len(data))]
    pd.DataFrame([(e.user, e.title, e.ts // 1000) for e in rows], columns=["user", "item", "ts"]).to_csv(path)
    return path


def call(events: Path, folder: Path, *more: str) -> dict[str, Any]:
    """Run the command; the parts' files."""
    where = ["--events", str(events), "--files", str(folder / "files"), "--page", str(folder / "docs" / "page.md")]
    results.main([*where, *more], SETTINGS)
    return {file.name: json.loads(file.read_text()) for file in sorted((folder / "files").iterdir())}


def test_a_part_that_was_run_before_is_not_run_again_and_the_page_says_what_was_found(
    events: Path, tmp_path: Path
) -> None:
    parts = "--only", "headline", "--only", "ablations-replay", "--only", "retraining"
    first = call(events, tmp_path, *parts, "--limit", "192")
    assert list(first) == ["ablations-replay.json", "headline.json", "retraining.json"]
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "files").iterdir()}
    (tmp_path / "files" / "headline.json").unlink()  # as if the run had been interrupted before it
    again = call(events, tmp_path, *parts, "--limit", "192")
    kept = [file.name for file, at in written.items() if file.stat().st_mtime_ns == at]
    assert sorted(kept) == ["ablations-replay.json", "retraining.json"]
    assert again["headline.json"]["found"]["mrr"] == first["headline.json"]["found"]["mrr"]
    page = (tmp_path / "docs" / "page.md").read_text()
    mrr = first["headline.json"]["found"]["mrr"]
    assert f"| Premiere | {results_page.short(mrr['premiere']['all'])} |" in page
    for word in ("no replay", "Against retraining", "192 |", "page-mrr.png", "page-ablations.png"):
        assert word in page
    for name in ("mrr", "ablations", "retraining"):
        picture = image.imread(tmp_path / "docs" / f"page-{name}.png")
        assert picture.std() > 0.01  # something is drawn


def test_the_questions_have_a_page_of_their_own_and_leave_the_other_as_it_is(events: Path, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("as it was")
    found = call(events, tmp_path, "--only", "flops", "--only", "coldstart", "--limit", "128")
    assert list(found) == ["coldstart.json", "flops.json"]
    page = (tmp_path / "docs" / "answers.md").read_text()
    for line in coldstart.lines(found["coldstart.json"]["found"]):
        assert line.rstrip() in page
    assert page.index("What does a training token cost?") < page.index("a title that nobody has watched?")
    for name in ("flops", "coldstart"):
        assert f"(answers-{name}.png)" in page
        assert image.imread(tmp_path / "docs" / f"answers-{name}.png").std() > 0.01
    assert (tmp_path / "docs" / "page.md").read_text() == "as it was"


def test_every_study_is_a_part_of_the_evidence() -> None:
    named = {command.__name__ for command in experiments.COMMANDS} - {"evaluate"}
    assert named <= {name.split("-")[0] for name in REPORT_PARTS}


def test_another_question_is_asked_anew(events: Path, tmp_path: Path) -> None:
    small = call(events, tmp_path, "--only", "headline", "--limit", "128")
    large = call(events, tmp_path, "--only", "headline")
    assert small["headline.json"]["data"]["events"] == 128
    assert large["headline.json"]["data"]["events"] == 320
    assert large["headline.json"]["found"]["report"]["scored"] == 256


def test_a_days_clicks_begin_with_that_day_and_know_its_articles_only(tmp_path: Path) -> None:
    day = pd.Timestamp("2017-10-10").value // 10**6
    rows = [(1, 7, day - 5), (1, 8, day), (2, 8, day + 1500), (2, 9, day + 2000)]
    pd.DataFrame(rows, columns=["user", "item", "ts_ms"]).to_parquet(tmp_path / "clicks.parquet")
    clicks = other_streams.globo(tmp_path / "clicks.parquet", 2)
    assert clicks.titles == ["8"]
    assert clicks.ts.tolist() == [day, day + 1500]


def test_made_up_times_keep_every_users_order_and_end_with_the_users_last(tmp_path: Path) -> None:
    rows = [("1", str(item), pos, 10**9) for pos, item in enumerate([5, 3, 4])]
    rows += [("2", str(item), pos, 10**9 + 40) for pos, item in enumerate([4, 5])]
    pd.DataFrame(rows, columns=["user", "item", "pos", "user_last_ts"]).to_parquet(tmp_path / "ml1m_ordered.parquet")
    (tmp_path / "movies.dat").write_text("3::Eén::Drama|War\n4::Two::Comedy\n5::Three::Drama\n", encoding="latin-1")
    (tmp_path / "overviews.csv").write_text("item,year,overview,release_date\n3,1990.0,words,1990-05-01\n")
    films = other_streams.ml_1m(tmp_path)
    order = [(films.event(k).user, films.event(k).title, films.event(k).ts // 1000 - 10**9) for k in range(5)]
    assert order == [("1", "5", -60), ("1", "3", -30), ("1", "4", 0), ("2", "4", 10), ("2", "5", 40)]
    told = next(launch for launch in films.launches if launch.title == "3")
    assert (told.genres, told.year, told.overview) == (["Drama", "War"], 1990, "words")


def test_the_learners_speed_is_looked_at_with_replay_and_without(data: DataSet) -> None:
    looks = other_streams.rates(data, no_text, SETTINGS, 1e-6, quiet)
    assert list(looks) == ["as it is", "no replay", other_streams.KEEPING_UP]
    assert [look["events"] for seen in looks.values() for look in seen] == [64, 128, 320]  # the last is large
    assert all(look["rate"] > 0 and look["resident"] > 0 for seen in looks.values() for look in seen)


def test_another_stream_tells_what_the_backbone_adds(data: DataSet) -> None:
    found = other_streams.compare(data, no_text, replace(SETTINGS, repeats=True), quiet, other_streams.HOUR)
    assert (found["events"], found["scored"], found["users"]) == (320, 256, 20)
    gain = found["gains"][0]
    assert (gain["of"], gain["over"]) == ("full", "no_backbone")
    assert gain["gain"]["all"]["mean"] == pytest.approx(
        found["mrr"]["full"]["all"] - found["mrr"]["no_backbone"]["all"]
    )
