"""The data of RecTools' training step."""

import pytest

from benchmarks.rectools_step import USERS, interactions


@pytest.mark.parametrize("titles", [24, 100])
def test_windows_are_full_and_cover_every_title(titles: int) -> None:
    table = interactions(titles, history=7)
    assert set(table.groupby("user").size()) == {8}
    assert set(table.title) == set(range(titles))
    assert table.user.nunique() == USERS + -(-titles // 8)
    assert table.groupby("user").ts.is_monotonic_increasing.all()
    assert table.title[: 8 * USERS].value_counts().idxmax() == 0  # Zipf: the first title is the most frequent
