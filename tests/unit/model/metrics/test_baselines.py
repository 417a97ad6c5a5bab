"""The baselines against a naive reimplementation, event by event, and against published numbers of a real dataset."""

import copy
import math
import os
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from infra.data.datasets import Dataset, load
from infra.data.simulate import simulate
from model.metrics.baselines import BASELINES, Baselines
from model.metrics.ranking import PrequentialMetrics
from streaming.records import Event

DAY_MS = 86_400_000
WINDOW_DAYS = {"popularity_1h": 1 / 24, "popularity_1d": 1, "popularity_7d": 7, "popularity_30d": 30}
PUBLISHED = ("popularity", "popularity_30d", "cooccurrence")
ML_SMALL = Path(os.environ.get("PREMIERE_DATA", ""))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return simulate(users=25, titles=60, events=1200, days=60, seed=5)


def steps(data: Dataset, baselines: Baselines) -> Iterator[Event]:
    """Yield the events; launch each title before the first later event."""
    candidates, cursor = data.launches_with_events(), 0
    for index in range(len(data)):
        event = data.event(index)
        while cursor < len(candidates) and (candidates[cursor].ts or 0) < event.ts:
            baselines.launch(candidates[cursor].title)
            cursor += 1
        yield event


def ranks(data: Dataset, baselines: Baselines) -> list[dict[str, float]]:
    found = []
    for event in steps(data, baselines):
        found.append(baselines.rank(event.user, event.title, event.ts))
        baselines.count(event.user, event.title, event.ts)
    return found


def naive_ranks(data: Dataset, repeats: bool) -> list[dict[str, float]]:
    """Ranks from the definitions: all counts are recomputed from all earlier events for each event."""
    launched = {launch.title: launch.ts or 0 for launch in data.launches_with_events()}
    history: list[Event] = []
    found = []
    for index in range(len(data)):
        now = data.event(index)
        seen = {e.title for e in history if e.user == now.user and not repeats}
        of_user = [e.title for e in history if e.user == now.user]
        titles = [t for t, ts in launched.items() if ts < now.ts and t not in seen]
        follows: dict[str, float] = {}
        last: dict[str, str] = {}
        for event in history:
            if of_user and last.get(event.user) == of_user[-1]:
                follows[event.title] = follows.get(event.title, 0) + 1
            last[event.user] = event.title
        total = {t: float([e.title for e in history].count(t)) for t in titles}
        scores = {"popularity": total}
        for name, days in WINDOW_DAYS.items():
            recent = [e.title for e in history if e.ts >= now.ts - days * DAY_MS]
            in_window = {t: float(recent.count(t)) for t in titles}
            scores[name] = {t: in_window[t] + total[t] * 1e-6 for t in titles}
        scores["cooccurrence"] = {
            t: follows.get(t, 0.0) + in_window[t] * 1e-3 + total[t] * 1e-6 for t in titles
        }  # of the last and longest window
        found.append({name: naive_rank(score, now.title) for name, score in scores.items()})
        history.append(now)
    return found


def naive_rank(score: dict[str, float], title: str) -> float:
    if title not in score:
        return math.inf
    higher = [s for s in score.values() if s > score[title]]
    tied = [s for s in score.values() if s == score[title]]
    return len(higher) + (len(tied) + 1) / 2


@pytest.mark.parametrize("repeats", [False, True])
def test_ranks_equal_naive_ranks(data: Dataset, repeats: bool) -> None:
    part = data.slice(0, 900)  # 45 days
    found = ranks(part, Baselines(repeats=repeats))
    assert found == naive_ranks(part, repeats)
    assert list(found[0]) == list(BASELINES)
    by_window = [[rank[name] for rank in found] for name in WINDOW_DAYS]
    assert all(one != other for one, other in combinations(by_window, 2))  # the data tell the windows apart


def test_rank_leaves_state_unchanged(data: Dataset) -> None:
    baselines = Baselines()
    ranks(data.slice(0, 400), baselines)
    before = copy.deepcopy(baselines.state_dict())
    for index in range(400, 500):
        event = data.event(index)
        baselines.rank(event.user, event.title, event.ts)
        baselines.rank("unknown user", event.title, event.ts)
    np.testing.assert_equal(baselines.state_dict(), before)


def test_restored_state_gives_equal_ranks(data: Dataset) -> None:
    restored = Baselines()
    expected = []
    for index, event in enumerate(steps(data, original := Baselines())):
        expected.append(original.rank(event.user, event.title, event.ts))
        original.count(event.user, event.title, event.ts)
        if index == 699:
            restored.load_state_dict(copy.deepcopy(original.state_dict()))
    launched = {launch.title for launch in data.launches_with_events() if (launch.ts or 0) < data.event(699).ts}
    for index in range(700, len(data)):
        event = data.event(index)
        for launch in data.launches_with_events():
            if launch.title not in launched and (launch.ts or 0) < event.ts:
                restored.launch(launch.title)
                launched.add(launch.title)
        assert restored.rank(event.user, event.title, event.ts) == expected[index]
        restored.count(event.user, event.title, event.ts)
    np.testing.assert_equal(restored.state_dict(), original.state_dict())


def test_recent_window_includes_its_full_length() -> None:
    baselines = Baselines()
    for title, ts in (("often", 0), ("often", 1), ("once", 2)):
        baselines.launch(title)
        baselines.count(f"user {ts}", title, ts)
    rank = {ts: baselines.rank("bob", "once", ts)["popularity_1d"] for ts in range(DAY_MS, DAY_MS + 4)}
    assert rank == {
        DAY_MS: 2,
        DAY_MS + 1: 2,
        DAY_MS + 2: 1,
        DAY_MS + 3: 2,
    }  # at last both are outside the window: popularity breaks the tie


def test_cooccurrence_outweighs_recent_popularity() -> None:
    baselines = Baselines()
    for title in ("first", "second", "hit"):
        baselines.launch(title)
    baselines.count("ann", "first", 0)
    baselines.count("ann", "second", 1)
    for user in range(500):
        baselines.count(f"user {user}", "hit", 2)
    baselines.count("bob", "first", 3)
    assert baselines.rank("bob", "second", 4) == {**dict.fromkeys(BASELINES, 2), "cooccurrence": 1}
    assert baselines.rank("bob", "hit", 4) == {**dict.fromkeys(BASELINES, 1), "cooccurrence": 2}


def test_unlaunched_and_withdrawn_titles_have_rank_infinity() -> None:
    baselines = Baselines()
    baselines.count("ann", "early", 1)
    assert set(baselines.rank("bob", "early", 2).values()) == {math.inf}
    baselines.launch("early")
    assert set(baselines.rank("bob", "early", 2).values()) == {1}
    baselines.withdraw("early")
    assert set(baselines.rank("bob", "early", 2).values()) == {math.inf}
    assert set(baselines.rank("bob", "unknown title", 2).values()) == {math.inf}


def test_repeats_disables_seen_filter() -> None:
    for repeats in (False, True):
        baselines = Baselines(repeats=repeats)
        baselines.launch("a")
        baselines.count("ann", "a", 1)
        assert baselines.has_seen("ann", "a") is not repeats
        assert (baselines.title_events("a"), baselines.user_events("ann"), baselines.user_events("bob")) == (1, 1, 0)


def test_memory_limits_evict_least_recently_active_users() -> None:
    random = np.random.default_rng(1)
    baselines = Baselines(max_titles=50, max_seen=200, max_pairs=100, max_window_events=30)
    for step in range(3000):
        user, title = f"u{random.integers(40)}", f"t{random.integers(80)}"
        baselines.launch(title)
        baselines.rank(user, title, step)
        baselines.count(user, title, step)
    state = baselines.state_dict()
    assert len(state["titles"]) == 50
    assert len(state["seen"]) <= 200
    assert len(state["follows"]) <= 100
    assert len(state["recent"]["events"]) <= 30
    assert baselines.user_events(state["users"][-1]) > 0


def test_full_baselines_evict_the_titles_with_the_fewest_events() -> None:
    """The other titles keep all counts, so their ranks are those of baselines that never held the evicted ones."""
    full, expected = Baselines(max_titles=4), Baselines()
    events = [("ann", "a"), ("bob", "a"), ("ann", "b"), ("bob", "b"), ("cid", "a"), ("cid", "b")]
    for baselines in (full, expected):
        for title in "ab":
            baselines.launch(title)
        for ts, (user, title) in enumerate(events[:2]):
            baselines.count(user, title, ts)
    for n in range(20):
        full.launch(f"invented {n}")
        full.count("eve", f"invented {n}", 2)
        full.withdraw(f"invented {n}")
    for baselines in (full, expected):
        for ts, (user, title) in enumerate(events[2:], 3):
            baselines.count(user, title, ts)
        baselines.launch("late")
    assert full.rank("dan", "late", 9)["popularity"] == 3
    for user, title in (("dan", "a"), ("dan", "b"), ("ann", "late")):
        assert full.rank(user, title, 9) == expected.rank(user, title, 9)
    restored = Baselines(max_titles=4)
    restored.load_state_dict(full.state_dict())
    for baselines in (full, restored):
        baselines.launch("later")
    assert restored.rank("dan", "late", 9) == full.rank("dan", "late", 9)


def test_metrics_equal_published_numbers() -> None:
    if ML_SMALL.name != "ml-small-2016":
        pytest.skip("PREMIERE_DATA does not name a folder ml-small-2016")
    data = load(ML_SMALL / "events.parquet", ML_SMALL / "titles.parquet")
    baselines, rankings = Baselines(), {name: PrequentialMetrics() for name in BASELINES}
    for index, event in enumerate(steps(data, baselines)):
        if index >= len(data) // 5 and not baselines.has_seen(event.user, event.title):
            prior = baselines.title_events(event.title), baselines.user_events(event.user)
            for name, rank in baselines.rank(event.user, event.title, event.ts).items():
                rankings[name].add(rank, *prior)
        baselines.count(event.user, event.title, event.ts)
    assert rankings["popularity"].scored()["all"] == 80_004
    mrr = {name: [round(v or 0, 4) for v in ranking.report()["mrr"].values()] for name, ranking in rankings.items()}
    assert {name: mrr[name] for name in PUBLISHED} == {
        "popularity": [0.0186, 0.0005, 0.0002, 0.0312],
        "popularity_30d": [0.0158, 0.0070, 0.0002, 0.0314],
        "cooccurrence": [0.0318, 0.0088, 0.0002, 0.0564],
    }
    top_10 = {
        name: [round(ranking.report()[m]["all"] or 0, 4) for m in ("hr10", "ndcg10")]
        for name, ranking in rankings.items()
        if name in PUBLISHED
    }
    assert top_10 == {
        "popularity": [0.0363, 0.0182],
        "popularity_30d": [0.0297, 0.0147],
        "cooccurrence": [0.0607, 0.0342],
    }


def test_erased_user_ranks_as_unknown_and_title_counts_stay() -> None:
    baselines = Baselines()
    for title in "abc":
        baselines.launch(title)
    for user in ("u", "v"):
        for ts, title in enumerate("ab"):
            baselines.count(user, title, ts)
    baselines.erase_user("u")
    baselines.erase_user("nobody")
    assert (baselines.user_events("u"), baselines.has_seen("u", "a"), baselines.title_events("a")) == (0, False, 2)
    assert baselines.rank("u", "a", 5) == baselines.rank("unknown user", "a", 5)
    assert baselines.state_dict()["users"] == ["v"]
    other = Baselines()
    other.load_state_dict(baselines.state_dict())
    assert other._seen_total == baselines._seen_total == 2


def test_baseline_top_titles_agree_with_ranks() -> None:
    baselines = Baselines()
    for n in range(30):
        baselines.launch(f"t{n}")
    for ts, (user, title) in enumerate([("a", 3), ("b", 3), ("c", 3), ("a", 7), ("b", 7), ("a", 9), ("d", 3)]):
        baselines.count(user, f"t{title}", ts)
    top = baselines.top_titles("d", 9, 4)
    assert top["popularity"] == ["t7", "t9", "t0", "t1"]  # t3 was seen; ties: the title known longer first
    assert top["cooccurrence"] == ["t7", "t9", "t0", "t1"]
    for name, titles in baselines.top_titles("unknown user", 9, 3).items():
        assert titles == ["t3", "t7", "t9"]
        assert [baselines.rank("unknown user", title, 9)[name] for title in titles] == [1, 2, 3]


def test_baseline_top_titles_are_candidates_only() -> None:
    baselines = Baselines()
    assert baselines.top_titles("u", 0, 10) == {name: [] for name in BASELINES}
    for title in ("a", "b", "c"):
        baselines.launch(title)
    baselines.withdraw("b")
    baselines.count("u", "never launched", 1)
    baselines.count("u", "c", 2)
    assert set(map(tuple, baselines.top_titles("u", 3, 10).values())) == {("a",)}
    assert set(map(tuple, baselines.top_titles("v", 3, 10).values())) == {("c", "a")}
    restored = Baselines()
    restored.load_state_dict(baselines.state_dict())
    assert restored.top_titles("v", 3, 10) == baselines.top_titles("v", 3, 10)
