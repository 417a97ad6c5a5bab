"""Lists that age: on a wheel of titles, where each step follows from the last, what an old list is worth is known."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
from matplotlib import image
from typer.testing import CliRunner

from infra.cli.main import app
from infra.data.datasets import DataSet
from infra.experiments import staleness
from infra.experiments.evaluate import write
from infra.experiments.stale_lists import (
    EVENTS,
    FILTERED,
    HOUR,
    LEFT,
    ORDERS,
    Known,
    ListRead,
    alone_ranks,
    events_age,
    events_ago,
    final_ranks,
    hours_ago,
    read_by,
    reading,
)
from infra.experiments.staleness import (
    AS_SET,
    DELAYS,
    FIRST,
    HORIZONS,
    NEXT,
    RIVALS,
    TAUGHT,
    WINDOWS,
    draw,
    lines,
    rivals,
    variants,
    verdicts,
)
from model.actions import ACTIONS
from model.pipeline import RankingRequest
from model.signals.candidates import Candidates
from model.signals.ranker import Ranker
from model.signals.table import COLUMN, SIGNALS
from model.state.stream_state import History
from tests.support.evaluation import SETTINGS, START, data_of, no_text
from tests.support.learner import RANKER

TITLES: Final = 12  # of the wheel


def wheel(events: int, users: int = 6) -> DataSet:
    """Each viewer goes round the wheel, one title after the other, from a place of their own."""
    random = np.random.default_rng(4)
    at = random.integers(TITLES, size=users)
    rows = []
    for n in range(events):
        user = int(random.integers(users))
        rows.append((user, int(at[user]), START + 600 * n))
        at[user] = (at[user] + 1) % TITLES
    return data_of(rows)


def history_of(rows: Sequence[int], hours: Sequence[int] = (), actions: Sequence[str] = ()) -> History:
    """Clicks at the turn of the hour, unless told."""
    times, did = hours or range(len(rows)), actions or ["click"] * len(rows)
    codes = np.array([ACTIONS[action].code for action in did], np.int64)
    return History("u", np.array(rows, np.int64), np.array(times, np.int64) * HOUR, codes)


def read_later(target: int, history: History, seen: Sequence[int], k: int, repeats: bool = False) -> ListRead:
    """A list of `k` events ago."""
    request = RankingRequest(history, 99 * HOUR, target, ACTIONS["click"].code, 0, len(history.rows_L))
    return reading(request, events_ago(history, k), np.array(seen, np.int32), repeats)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    sequence = SETTINGS.sequence
    network = replace(sequence.network, history=32, width=32, d_id=16, d_out=16, dropout=0.0)
    quick = replace(sequence.optim, lr=1e-2, row_lr=0.2)
    sequence = replace(sequence, network=network, steps=10, replayed=6, optim=quick)
    settings = replace(SETTINGS, sequence=sequence, repeats=True)
    return staleness.report(wheel(360), no_text, settings, lambda _line: None, every=10)


def test_a_list_of_some_events_ago_is_made_without_them_at_the_time_of_the_last_one_known() -> None:
    history = history_of([7, 8, 9], hours=[1, 5, 6])
    for k, rows, hour in ((0, [7, 8, 9], 6), (1, [7, 8], 5), (2, [7], 1)):
        known = events_ago(history, k)
        assert (known.history.rows_L.tolist(), known.now, known.missed) == (rows, hour * HOUR, k)


def test_a_list_of_some_hours_ago_is_made_from_what_is_older() -> None:
    history = history_of([7, 8, 9], hours=[1, 5, 6])
    for hours, rows in ((0, [7, 8, 9]), (1, [7, 8, 9]), (2, [7, 8]), (3, [7]), (6, [7]), (12, [])):
        known = hours_ago(history, 7 * HOUR, hours)
        assert (known.history.rows_L.tolist(), known.now) == (rows, (7 - hours) * HOUR)
        assert known.missed == 3 - len(rows)


def test_the_reader_takes_the_longest_horizon_that_has_passed() -> None:
    assert [read_by((0, 3, 10), missed) for missed in (0, 2, 3, 9, 10, 400)] == [0, 0, 3, 3, 10, 10]


def test_what_was_taken_since_gives_its_places_to_what_stands_behind_it() -> None:
    signals_CF = np.zeros((5, len(SIGNALS)), np.float32)
    signals_CF[:, COLUMN["text recent"]] = [5, 4, 3, 2, 1]
    score_V = np.arange(10, 0, -1, dtype=np.float32)
    ranker = Ranker(RANKER)  # has learned nothing: the linear score decides

    def ranks(target: int, *since: int) -> tuple[float, float]:
        found = Candidates(np.arange(5), 5, signals_CF, score_V.copy())
        known = Known(history_of([]), 0, len(since))
        return final_ranks(found, ranker, ListRead(target, known, np.zeros(0, np.int32), np.array(since, np.int32)))

    assert ranks(3) == (4, 4)
    assert ranks(3, 0, 4) == (3, 4)  # what stands behind the target takes no place
    assert ranks(7) == (8, 8)  # behind the shortlist
    assert ranks(7, 0, 6, 9) == (6, 8)


def test_a_list_leaves_out_what_was_seen_when_it_was_made_and_its_reader_what_was_taken_since() -> None:
    score_V = np.array([1, 2, 3, 4, 5, 6, 7, 8], np.float32)
    history = history_of([7, 3, 6, 5, 7])  # of these 7 was known before
    for k, since, ranks in ((0, [], (2, 2)), (2, [5], (2, 3)), (3, [5, 6], (2, 4)), (4, [3, 5, 6], (2, 5))):
        read = read_later(2, history, [7, 3, 6, 5, -1], k)
        assert (read.since.tolist(), read.blocked.tolist()) == (since, sorted({3, 5, 6, 7} - set(since)))
        assert alone_ranks(score_V.copy(), read) == ranks  # 4 is above it throughout
    read = read_later(2, history, [7, 3, 6, 5, -1], 4, repeats=True)
    assert alone_ranks(score_V.copy(), read) == (6, 6)
    assert len(read.since) == len(read.blocked) == 0


def test_what_was_merely_shown_since_can_be_taken() -> None:
    score_V = np.array([1, 2, 3, 4], np.float32)
    history = history_of([1, 2], actions=["click", "impression"])
    read = read_later(2, history, seen=[1], k=1)
    assert alone_ranks(score_V.copy(), read) == (2, 2)  # behind 3
    assert read.since.tolist() == []
    disliked = history_of([1, 2, 3], actions=["click", "click", "dislike"])
    assert read_later(0, disliked, seen=[1, 2], k=2).since.tolist() == [2]
    shown_before = history_of([2, 1, 2], actions=["impression", "click", "click"])
    read = read_later(0, shown_before, seen=[1, 2], k=1)
    assert (read.since.tolist(), read.blocked.tolist()) == ([2], [1])  # it was in the list, for it was not seen yet


def test_where_the_last_title_tells_the_next_an_old_list_is_wrong(found: dict[str, Any]) -> None:
    for title in ORDERS.values():
        mrr = found["ago"][title][LEFT]["mrr"][NEXT]
        assert mrr["0 events"] > 2 * mrr["1 events"]  # had a list known what came since, it would be as good
        fresh = found["hours"][title][LEFT]["mrr"][NEXT]
        assert fresh["0 hours"] > 2 * fresh["6 hours"]


def test_a_head_that_learns_the_next_three_starts_lower_and_holds_longer(found: dict[str, Any]) -> None:
    of = found["ago"]["the backbone alone"][LEFT]
    mrr, gain = of["mrr"], of["gain"]["window 3 over next event"]
    assert mrr["window 3"]["0 events"] < mrr[NEXT]["0 events"]
    assert mrr["window 3"]["1 events"] > mrr[NEXT]["1 events"]
    assert gain["0 events"]["mean"] == pytest.approx(mrr["window 3"]["0 events"] - mrr[NEXT]["0 events"])


def test_horizons_differ_from_the_first_of_them_once_a_reader_takes_another(found: dict[str, Any]) -> None:
    mrr = found["ago"]["the backbone alone"][LEFT]["mrr"]
    same = {k: mrr[HORIZONS][events_age(k)] == mrr[FIRST][events_age(k)] for k in EVENTS}
    assert same == {k: read_by(DELAYS, k) == 0 for k in EVENTS}


def test_where_people_come_back_nothing_is_left_out(found: dict[str, Any]) -> None:
    for title in ORDERS.values():
        assert found["ago"][title][FILTERED] == found["ago"][title][LEFT]


def test_what_each_backbone_and_ranker_learns_from() -> None:
    trained = variants(SETTINGS)
    asked = {row: (of.sequence.network.horizons, of.sequence.objective.windows) for row, of in trained.items()}
    assert asked[NEXT] == ((0,), (1,))
    assert [asked[row] for row in WINDOWS] == [((0,), (3,)), ((0,), (5,)), ((0,), (10,))]
    assert asked[HORIZONS][0] == DELAYS
    assert trained[AS_SET] == SETTINGS
    pipelines, ways = rivals(SETTINGS)
    assert {name for name, one in pipelines.items() if one.delayed} == {HORIZONS, AS_SET, TAUGHT}
    assert ways[TAUGHT].backbone is pipelines[NEXT].sequence


def gained(low: float, high: float, users: int = 30) -> dict[str, float]:
    return {"mean": (low + high) / 2, "low": low, "high": high, "users": users}


def test_the_verdict_is_the_intervals(found: dict[str, Any]) -> None:
    def goal(gain: dict[str, float], one: dict[str, float] | None = None) -> str:
        gains = {f"{HORIZONS} over {rival}": dict.fromkeys(map(events_age, EVENTS), gain) for rival in RIVALS}
        if one:
            gains[f"{HORIZONS} over {NEXT}"] = gains[f"{HORIZONS} over {NEXT}"] | {"10 events": one}
        gains[f"{FIRST} over {NEXT}"] = {"0 events": gained(-0.02, -0.01)}
        told = {"the backbone alone": {FILTERED: {"gain": gains}}, "the final lists": {}}
        now = {"the backbone alone": {FILTERED: {"gain": {f"{FIRST} over {NEXT}": {"0 hours": gained(0.03, 0.05)}}}}}
        return "\n".join(verdicts({"ago": told, "hours": now}))

    assert "all viewers, against next-event training: better, MRR +0.0400 [+0.0300, +" in goal(gained(0.01, 0.02))
    assert "with a past as below: worse, MRR -0.0150 [-0.0200, -0.0100]." in goal(gained(0.01, 0.02))
    assert "wins wherever an interval can tell: from 2 events on it is better in 16 of 16" in goal(gained(0.01, 0.02))
    assert "cannot be told: from 2 events on it is better in 0 of 16" in goal(gained(0.01, 0.02, users=9))
    lost = goal(gained(-0.01, 0.02), gained(-0.02, -0.01))
    assert "does not win throughout: from 2 events on it is better in 0 of 16 comparisons and worse in 1" in lost
    assert "against 'next event': worse at 10; no difference that can be told at 0, 1, 2, 5, 20 events." in lost


def test_the_report_adds_up_and_can_be_read_and_seen(found: dict[str, Any], tmp_path: Path) -> None:
    ago, hours = found["ago"], found["hours"]
    assert found["scored"] == 288
    assert 0 < ago["scored"]["the final lists"] < ago["scored"]["the backbone alone"] <= found["scored"]
    assert hours["scored"] == 28  # one in ten
    assert hours["missed"]["0 hours"] == hours["unknown"]["0 hours"] == 0
    assert hours["missed"]["6 hours"] == hours["scored"]  # nobody pauses for so long
    assert hours["unknown"]["48 hours"] > hours["unknown"]["6 hours"]
    assert hours["gaps"]["0 hours"] == found["scored"] > hours["gaps"]["1 hours"] > hours["gaps"]["6 hours"]
    write(found, tmp_path / "stale.json")
    assert json.loads((tmp_path / "stale.json").read_text())["ago"] == ago
    text = "\n".join(lines(found))
    mrr = ago["the backbone alone"][FILTERED]["mrr"][HORIZONS]
    assert f"{mrr['5 events']:.4f}" in text
    assert f"{mrr['5 events'] / mrr['0 events']:.0%}" in text
    draw(found, tmp_path / "stale.png")
    assert len(np.unique(image.imread(tmp_path / "stale.png").reshape(-1, 4), axis=0)) > 20


def test_the_command_runs_on_a_users_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(n % 2, (n * 7) % 61, START + 600 * n) for n in range(60)]
    pd.DataFrame(rows, columns=["user", "item", "ts"]).to_csv("e.csv", index=False)
    asked = ["staleness", "--every", "20", "--events", "e.csv", "--report", "r.json", "--figure", "f.png"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert "60 events, 48 scored, 2 users." in result.output
    assert json.loads(Path("r.json").read_text())["every"] == 20
    assert image.imread("f.png").shape[0] > 300
