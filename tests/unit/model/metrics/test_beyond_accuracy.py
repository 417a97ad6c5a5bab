"""What lists show, and how titles of each age are ranked: known answers."""

import math

import pytest

from model.learner import Learner
from model.metrics import beyond_accuracy, popularity_buckets
from model.metrics.baselines import Baselines
from model.metrics.beyond_accuracy import BeyondAccuracy
from model.metrics.popularity_buckets import ByPopularity
from tests.support.learner import SETTINGS, Stream, differences


def test_the_charts_and_nothing_else_cover_ten_titles() -> None:
    chart, shown = [f"t{n}" for n in range(30)], BeyondAccuracy()
    for _ in range(50):
        shown.add(chart, [100 - n for n in range(30)])
    assert shown.report(200) == {"coverage": 10 / 200, "popularity": 95.5, "with_new": 0.0}


def test_one_new_title_in_ten_is_seen_and_one_behind_the_tenth_place_is_not() -> None:
    shown = BeyondAccuracy()
    shown.add([f"a{n}" for n in range(10)], [10] * 9 + [9])
    shown.add([f"a{n}" for n in range(11)], [10] * 10 + [0])
    assert shown.report(40) == {"coverage": 0.25, "popularity": 199 / 20, "with_new": 0.5}


def test_lists_that_share_nothing_cover_everything() -> None:
    shown = BeyondAccuracy()
    for start in range(0, 40, 10):
        shown.add([str(n) for n in range(start, start + 10)], [0] * 10)
    assert shown.report(40) == {"coverage": 1.0, "popularity": 0.0, "with_new": 1.0}


def test_nothing_shown_is_no_number_and_an_empty_list_is_a_list() -> None:
    shown = BeyondAccuracy()
    assert shown.report(0) == {"coverage": None, "popularity": None, "with_new": None}
    shown.add([], [])
    assert shown.report(5) == {"coverage": 0.0, "popularity": None, "with_new": 0.0}
    assert beyond_accuracy.table({"x": shown}, 5)["coverage"] == {"x": 0.0}


@pytest.mark.parametrize(
    ("events", "age"), [(0, "0"), (1, "1-4"), (4, "1-4"), (5, "5-19"), (19, "5-19"), (20, "20+"), (9999, "20+")]
)
def test_each_title_has_one_age(events: int, age: str) -> None:
    one = ByPopularity()
    one.add(4.0, events)
    assert [name for name, count in one.scored().items() if count] == [age]
    assert one.report()["mrr"] == {name: 0.25 if name == age else None for name in popularity_buckets.BUCKETS}


def test_measures_by_age_are_means_of_their_own_events() -> None:
    ranking = ByPopularity()
    for rank, events in ((1, 0), (math.inf, 0), (2, 3), (10, 7), (11, 8), (5, 500)):
        ranking.add(rank, events)
    found = popularity_buckets.table({"model": ranking})
    assert found["scored"] == {"0": 2, "1-4": 1, "5-19": 2, "20+": 1}
    assert found["mrr"]["model"] == pytest.approx({"0": 0.5, "1-4": 0.5, "5-19": (0.1 + 1 / 11) / 2, "20+": 0.2})
    assert found["hr10"]["model"] == {"0": 0.5, "1-4": 1.0, "5-19": 0.5, "20+": 1.0}


def test_the_best_by_a_baseline_are_those_it_ranks_first() -> None:
    baselines = Baselines()
    for n in range(30):
        baselines.launch(f"t{n}")
    for ts, (user, title) in enumerate([("a", 3), ("b", 3), ("c", 3), ("a", 7), ("b", 7), ("a", 9), ("d", 3)]):
        baselines.count(user, f"t{title}", ts)
    best = baselines.best("d", 9, 4)
    assert best["popularity"] == ["t7", "t9", "t0", "t1"]  # t3 was seen; of equals the one known longer
    assert best["cooccurrence"] == ["t7", "t9", "t0", "t1"]
    for name, titles in baselines.best("a stranger", 9, 3).items():
        assert titles == ["t3", "t7", "t9"]
        assert [baselines.rank("a stranger", title, 9)[name] for title in titles] == [1, 2, 3]


def test_a_baseline_shows_candidates_only_however_few_they_are() -> None:
    baselines = Baselines()
    assert baselines.best("u", 0, 10) == {"popularity": [], "popularity_recent": [], "cooccurrence": []}
    for title in ("a", "b", "c"):
        baselines.launch(title)
    baselines.withdraw("b")
    baselines.count("u", "never launched", 1)
    baselines.count("u", "c", 2)
    assert set(map(tuple, baselines.best("u", 3, 10).values())) == {("a",)}
    assert set(map(tuple, baselines.best("v", 3, 10).values())) == {("c", "a")}
    again = Baselines()
    again.load_state_dict(baselines.state_dict())
    assert again.best("v", 3, 10) == baselines.best("v", 3, 10)


def test_what_a_learner_tells_is_what_it_ranked_and_telling_changes_nothing() -> None:
    found, states = [], []
    for top in (0, 4):
        stream, learner = Stream(seed=9), Learner(SETTINGS, top=top)
        found.append([event for batch in stream.batches(15) for event in learner.observe(batch).ranked])
        states.append(learner.state_dict())
    silent, telling = found
    assert differences(states[0], states[1]) == []
    assert [event.ranks for event in silent] == [event.ranks for event in telling]
    assert all(event.best == {} for event in silent)
    inside = 0
    for event in telling:
        best, rank = event.best["full"], event.ranks["full"]
        assert len(best) == len(set(best)) <= 4
        assert (event.title in best) == (rank <= 4)
        if rank <= 4 and rank.is_integer():
            inside += best.index(event.title) == rank - 1
    assert inside > 5
