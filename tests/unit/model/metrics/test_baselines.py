"""The baselines against a plain re-implementation, event by event, and against the figures published for a real set."""

import copy
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from infra.data.datasets import DataSet, load
from infra.data.simulate import simulate
from model.metrics.baselines import NAMES, Baselines
from model.metrics.ranking import Prequential
from streaming.records import Event

DAY_MS = 86_400_000
ML_SMALL = Path(os.environ.get("PREMIERE_DATA", ""))


@pytest.fixture(scope="module")
def small() -> DataSet:
    return simulate(users=25, titles=60, events=1200, days=60, seed=5)


def steps(data: DataSet, baselines: Baselines) -> Iterator[Event]:
    """The events, each after the launches before it."""
    candidates, cursor = data.launches_with_events(), 0
    for index in range(len(data)):
        event = data.event(index)
        while cursor < len(candidates) and (candidates[cursor].ts or 0) < event.ts:
            baselines.launch(candidates[cursor].title)
            cursor += 1
        yield event


def ranks(data: DataSet, baselines: Baselines) -> list[dict[str, float]]:
    found = []
    for event in steps(data, baselines):
        found.append(baselines.rank(event.user, event.title, event.ts))
        baselines.count(event.user, event.title, event.ts)
    return found


def plainly(data: DataSet, days: float, repeats: bool) -> list[dict[str, float]]:
    """The same from the definitions, recounted from the whole past for each event."""
    launched = {launch.title: launch.ts or 0 for launch in data.launches_with_events()}
    history: list[Event] = []
    found = []
    for index in range(len(data)):
        now = data.event(index)
        seen = {e.title for e in history if e.user == now.user and not repeats}
        own = [e.title for e in history if e.user == now.user]
        titles = [t for t, ts in launched.items() if ts < now.ts and t not in seen]
        recent = [e.title for e in history if e.ts >= now.ts - days * DAY_MS]
        follows: dict[str, float] = {}
        last: dict[str, str] = {}
        for event in history:
            if own and last.get(event.user) == own[-1]:
                follows[event.title] = follows.get(event.title, 0) + 1
            last[event.user] = event.title
        pop = {t: float([e.title for e in history].count(t)) for t in titles}
        win = {t: float(recent.count(t)) for t in titles}
        window = {t: win[t] + pop[t] * 1e-6 for t in titles}
        follow = {t: follows.get(t, 0.0) + win[t] * 1e-3 + pop[t] * 1e-6 for t in titles}
        found.append({n: place(s, now.title) for n, s in zip(NAMES, (pop, window, follow), strict=True)})
        history.append(now)
    return found


def place(score: dict[str, float], title: str) -> float:
    if title not in score:
        return math.inf
    above = [s for s in score.values() if s > score[title]]
    level = [s for s in score.values() if s == score[title]]
    return len(above) + (len(level) + 1) / 2


@pytest.mark.parametrize(("days", "repeats"), [(5, False), (5, True), (30, False)])
def test_every_rank_equals_a_plain_recount(small: DataSet, days: float, repeats: bool) -> None:
    part = small.slice(0, 500)
    assert ranks(part, Baselines(days=days, repeats=repeats)) == plainly(part, days, repeats)


def test_ranking_changes_nothing(small: DataSet) -> None:
    baselines = Baselines(days=5)
    ranks(small.slice(0, 400), baselines)
    before = copy.deepcopy(baselines.state_dict())
    for index in range(400, 500):
        event = small.event(index)
        baselines.rank(event.user, event.title, event.ts)
        baselines.rank("a stranger", event.title, event.ts)
    np.testing.assert_equal(baselines.state_dict(), before)


def test_a_restart_changes_no_rank_that_follows(small: DataSet) -> None:
    crashing = Baselines(days=5)
    expected = []
    for index, event in enumerate(steps(small, whole := Baselines(days=5))):
        expected.append(whole.rank(event.user, event.title, event.ts))
        whole.count(event.user, event.title, event.ts)
        if index == 699:
            crashing.load_state_dict(copy.deepcopy(whole.state_dict()))
    launched = {launch.title for launch in small.launches_with_events() if (launch.ts or 0) < small.event(699).ts}
    for index in range(700, len(small)):
        event = small.event(index)
        for launch in small.launches_with_events():
            if launch.title not in launched and (launch.ts or 0) < event.ts:
                crashing.launch(launch.title)
                launched.add(launch.title)
        assert crashing.rank(event.user, event.title, event.ts) == expected[index]
        crashing.count(event.user, event.title, event.ts)
    np.testing.assert_equal(crashing.state_dict(), whole.state_dict())


def test_an_event_is_in_the_window_up_to_its_full_length() -> None:
    baselines = Baselines(days=1)
    for title, ts in (("often", 0), ("often", 1), ("once", 2)):
        baselines.launch(title)
        baselines.count(f"viewer {ts}", title, ts)
    rank = {ts: baselines.rank("bob", "once", ts)["popularity_recent"] for ts in range(DAY_MS, DAY_MS + 4)}
    assert rank == {DAY_MS: 2, DAY_MS + 1: 2, DAY_MS + 2: 1, DAY_MS + 3: 2}  # at last both are out: popularity decides


def test_one_succession_outweighs_hundreds_of_recent_events() -> None:
    baselines = Baselines()
    for title in ("first", "second", "hit"):
        baselines.launch(title)
    baselines.count("ann", "first", 0)
    baselines.count("ann", "second", 1)
    for viewer in range(500):
        baselines.count(f"viewer {viewer}", "hit", 2)
    baselines.count("bob", "first", 3)
    assert baselines.rank("bob", "second", 4) == {"popularity": 2, "popularity_recent": 2, "cooccurrence": 1}
    assert baselines.rank("bob", "hit", 4) == {"popularity": 1, "popularity_recent": 1, "cooccurrence": 2}


def test_an_unlaunched_and_a_withdrawn_title_have_rank_infinity() -> None:
    baselines = Baselines()
    baselines.count("ann", "early", 1)
    assert set(baselines.rank("bob", "early", 2).values()) == {math.inf}
    baselines.launch("early")
    assert set(baselines.rank("bob", "early", 2).values()) == {1}
    baselines.withdraw("early")
    assert set(baselines.rank("bob", "early", 2).values()) == {math.inf}
    assert set(baselines.rank("bob", "never heard of", 2).values()) == {math.inf}


def test_the_seen_filter_is_a_setting() -> None:
    for repeats in (False, True):
        baselines = Baselines(repeats=repeats)
        baselines.launch("a")
        baselines.count("ann", "a", 1)
        assert baselines.has_seen("ann", "a") is not repeats
        assert (baselines.title_events("a"), baselines.user_events("ann"), baselines.user_events("bob")) == (1, 1, 0)


def test_memory_stays_within_its_limits_and_the_recently_active_stay_known() -> None:
    random = np.random.default_rng(1)
    baselines = Baselines(max_titles=50, max_seen=200, max_pairs=100, max_lately=30)
    for step in range(3000):
        user, title = f"u{random.integers(40)}", f"t{random.integers(80)}"
        baselines.launch(title)
        baselines.rank(user, title, step)
        baselines.count(user, title, step)
    state = baselines.state_dict()
    assert len(state["titles"]) == 50
    assert len(state["seen"]) <= 200
    assert len(state["follows"]) <= 100
    assert len(state["lately"]) <= 30
    assert state["win"].sum() == len(state["lately"])
    assert baselines.user_events(state["users"][-1]) > 0


def test_the_published_figures_come_out() -> None:
    if ML_SMALL.name != "ml-small-2016":
        pytest.skip("PREMIERE_DATA does not name a folder ml-small-2016")
    data = load(ML_SMALL / "events.parquet", ML_SMALL / "titles.parquet")
    baselines, rankings = Baselines(), {name: Prequential() for name in NAMES}
    for index, event in enumerate(steps(data, baselines)):
        if index >= len(data) // 5 and not baselines.has_seen(event.user, event.title):
            prior = baselines.title_events(event.title), baselines.user_events(event.user)
            for name, rank in baselines.rank(event.user, event.title, event.ts).items():
                rankings[name].add(rank, *prior)
        baselines.count(event.user, event.title, event.ts)
    assert rankings["popularity"].scored()["all"] == 80_004
    mrr = {name: [round(v or 0, 4) for v in ranking.report()["mrr"].values()] for name, ranking in rankings.items()}
    assert mrr == {
        "popularity": [0.0186, 0.0005, 0.0002, 0.0312],
        "popularity_recent": [0.0158, 0.0070, 0.0002, 0.0314],
        "cooccurrence": [0.0318, 0.0088, 0.0002, 0.0564],
    }
    top = {
        name: [round(ranking.report()[m]["all"] or 0, 4) for m in ("hr10", "ndcg10")]
        for name, ranking in rankings.items()
    }
    assert top == {
        "popularity": [0.0363, 0.0182],
        "popularity_recent": [0.0297, 0.0147],
        "cooccurrence": [0.0607, 0.0342],
    }


def test_a_forgotten_user_is_a_stranger_and_the_counts_stay() -> None:
    baselines = Baselines()
    for title in "abc":
        baselines.launch(title)
    for user in ("u", "v"):
        for ts, title in enumerate("ab"):
            baselines.count(user, title, ts)
    baselines.erase_user("u")
    baselines.erase_user("nobody")
    assert (baselines.user_events("u"), baselines.has_seen("u", "a"), baselines.title_events("a")) == (0, False, 2)
    assert baselines.rank("u", "a", 5) == baselines.rank("stranger", "a", 5)
    assert baselines.state_dict()["users"] == ["v"]
    other = Baselines()
    other.load_state_dict(baselines.state_dict())
    assert other._seen == baselines._seen == 2
