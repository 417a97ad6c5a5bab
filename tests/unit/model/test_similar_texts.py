"""Groups of near-identical texts: the oldest title leads, and earlier groups only save time."""

import numpy as np
import pytest

from model.similar_texts import NO_GROUPS, TextGroups, group_texts
from tests.support.learner import random_unit_vectors


def grouped(rows: list[int], texts: list[int], earlier: TextGroups = NO_GROUPS) -> TextGroups:
    """The groups of titles with these rows and these of some unlike texts, oldest title first."""
    return group_texts(np.array(rows, np.int64), np.eye(40, dtype=np.float32)[texts], earlier)


def test_titles_join_the_oldest_one_with_their_text() -> None:
    assert grouped([5, 6, 7, 8, 9], [1, 2, 1, 2, 3]).leader_M.tolist() == [0, 1, 0, 1, 4]
    assert grouped([6, 7, 8, 9], [2, 1, 2, 3]).leader_M.tolist() == [0, 1, 0, 3]
    assert grouped([], []).leader_M.tolist() == []


def test_title_near_a_follower_only_is_a_leader() -> None:
    angle = np.array([0, 0.2, 0.4])  # the cosine is 0.98 for neighbors, 0.92 for the outer two
    text_ME = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    assert group_texts(np.arange(3), text_ME, NO_GROUPS).leader_M.tolist() == [0, 0, 2]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("texts", [3, 30])
def test_earlier_groups_change_nothing(texts: int, seed: int) -> None:
    random, rows, earlier, last = np.random.default_rng(seed), list[int](), NO_GROUPS, 0
    text_of = dict[int, int]()
    for _ in range(60):
        for _ in range(random.integers(0, 3)):
            rows, last = [*rows, last], last + 1
            text_of[last - 1] = int(random.integers(0, texts))
        if rows and random.random() < 0.5:
            rows.pop(int(random.integers(0, len(rows))))
        if rows and random.random() < 0.1:  # an older title that competes again
            rows = sorted({*rows, int(random.integers(0, last))})
        if rows and random.random() < 0.1:
            text_of[rows[0]] = int(random.integers(0, texts))
        chosen = [text_of[row] for row in rows]
        earlier = grouped(rows, chosen, earlier)
        assert earlier.leader_M.tolist() == grouped(rows, chosen).leader_M.tolist()


def test_many_new_titles_at_once() -> None:
    text_ME = random_unit_vectors(np.random.default_rng(0), 50, 16)[np.arange(300) % 50]
    first = group_texts(np.arange(20), text_ME[:20], NO_GROUPS)
    assert group_texts(np.arange(300), text_ME, first).leader_M.tolist() == (np.arange(300) % 50).tolist()
