"""Beyond-accuracy metrics: known answers."""

from model.metrics import beyond_accuracy
from model.metrics.beyond_accuracy import BeyondAccuracy


def test_constant_list_covers_ten_titles() -> None:
    titles, metrics = [f"t{n}" for n in range(30)], BeyondAccuracy()
    for _ in range(50):
        metrics.add(titles, [100 - n for n in range(30)])
    assert metrics.report(200) == {"coverage": 10 / 200, "popularity_bias": 95.5, "new_title_share": 0.0}


def test_new_title_counts_in_the_first_ten_only() -> None:
    metrics = BeyondAccuracy()
    metrics.add([f"a{n}" for n in range(10)], [10] * 9 + [9])
    metrics.add([f"a{n}" for n in range(11)], [10] * 10 + [0])
    assert metrics.report(40) == {"coverage": 0.25, "popularity_bias": 199 / 20, "new_title_share": 0.5}


def test_disjoint_lists_cover_all_candidates() -> None:
    metrics = BeyondAccuracy()
    for start in range(0, 40, 10):
        metrics.add([str(n) for n in range(start, start + 10)], [0] * 10)
    assert metrics.report(40) == {"coverage": 1.0, "popularity_bias": 0.0, "new_title_share": 1.0}


def test_report_without_lists_is_none_and_an_empty_list_counts() -> None:
    metrics = BeyondAccuracy()
    assert metrics.report(0) == {"coverage": None, "popularity_bias": None, "new_title_share": None}
    metrics.add([], [])
    assert metrics.report(5) == {"coverage": 0.0, "popularity_bias": None, "new_title_share": 0.0}
    assert beyond_accuracy.beyond_accuracy_report({"x": metrics}, 5)["coverage"] == {"x": 0.0}
