"""Ranks, slices and means, against numbers worked out by hand."""

import json
import math

import numpy as np
import pytest

from model.metrics import Prequential, average_rank, slices_of, table


def test_a_tie_has_the_mean_of_the_places_it_spans() -> None:
    score = np.array([3.0, 1.0, 1.0, 1.0, 0.0])
    assert [average_rank(score, target) for target in range(5)] == [1, 3, 3, 3, 5]


def test_a_masked_or_undefined_target_is_no_candidate() -> None:
    score = np.array([1.0, -np.inf, np.nan, -np.inf])
    assert average_rank(score, 1) == math.inf
    assert average_rank(score, 2) == math.inf
    assert average_rank(score, 0) == 1


def test_the_slices_end_where_the_protocol_says() -> None:
    assert slices_of(0, 4) == (True, True, True, True)
    assert slices_of(9, 5) == (True, True, False, False)
    assert slices_of(10, 4) == (True, False, False, True)


def test_the_measures_are_those_of_the_textbook() -> None:
    ranking = Prequential()
    ranking.add(1, 0, 0)  # in every slice
    ranking.add(3, 20, 20)
    ranking.add(10.5, 5, 20)  # a new title, beyond the top 10
    ranking.add(math.inf, 0, 20)  # a title that nobody had launched
    report = ranking.report()
    assert ranking.scored() == {"all": 4, "new_titles": 3, "no_event_titles": 2, "new_users": 1}
    assert report["mrr"] == {
        "all": pytest.approx((1 + 1 / 3 + 1 / 10.5) / 4),
        "new_titles": pytest.approx((1 + 1 / 10.5) / 3),
        "no_event_titles": 0.5,
        "new_users": 1.0,
    }
    assert report["hr10"] == {"all": 0.5, "new_titles": pytest.approx(1 / 3), "no_event_titles": 0.5, "new_users": 1.0}
    assert report["ndcg10"]["all"] == pytest.approx((1 + 1 / 2) / 4)


def test_where_nothing_was_scored_there_is_no_number() -> None:
    ranking = Prequential()
    assert ranking.report()["mrr"] == dict.fromkeys(("all", "new_titles", "no_event_titles", "new_users"))
    assert ranking.recent() == ranking.report()
    ranking.add(2, 50, 50)
    assert ranking.report()["mrr"]["new_users"] is None
    assert json.loads(json.dumps(ranking.report()))["mrr"]["all"] == 0.5


def test_the_window_forgets_and_the_total_does_not() -> None:
    ranking = Prequential(window=3)
    for rank in (1, 1, 1, 4, 4, 4):
        ranking.add(rank, 0, 9)
    assert ranking.recent()["mrr"]["all"] == 0.25
    assert ranking.report()["mrr"]["all"] == pytest.approx(0.625)


def test_a_rank_below_one_is_refused() -> None:
    for rank in (0.5, 0, math.nan):
        with pytest.raises(ValueError, match="a rank is 1 or more"):
            Prequential().add(rank, 0, 0)


def test_a_restart_changes_no_report_that_follows() -> None:
    random = np.random.default_rng(3)
    rows = [(float(1 + random.integers(40) / 2), int(random.integers(15)), int(random.integers(8))) for _ in range(50)]
    whole, before, after = Prequential(20), Prequential(20), Prequential()
    for row in rows:
        whole.add(*row)
    for row in rows[:23]:
        before.add(*row)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    for row in rows[23:]:
        after.add(*row)
    assert (after.report(), after.recent(), after.scored()) == (whole.report(), whole.recent(), whole.scored())


def test_the_table_has_the_shape_that_scripts_read() -> None:
    ranking = Prequential()
    ranking.add(2, 0, 0)
    found = table({"premiere": ranking, "popularity": Prequential()})
    assert list(found) == ["mrr", "hr10", "ndcg10"]
    assert list(found["mrr"]) == ["premiere", "popularity"]
    assert found["mrr"]["premiere"] == {"all": 0.5, "new_titles": 0.5, "no_event_titles": 0.5, "new_users": 0.5}
