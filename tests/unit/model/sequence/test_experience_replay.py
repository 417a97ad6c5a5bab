"""The replay buffer: a growing window is kept up to date, a grown one stays, and newer ones are drawn more often."""

import numpy as np
import pytest

from model.sequence.experience_replay import DatasetProducer
from tests.support.learner import differences


def add(replay: DatasetProducer, user: str, many: int, first: int = 0) -> None:
    """A history of `many` events, titles numbered from `first` on."""
    rows = np.arange(first, first + many, dtype=np.int64)
    replay.add(user, rows, rows * 10, rows % 5, many)


def windows(replay: DatasetProducer) -> list[list[int]]:
    """Titles held, by place."""
    held = []
    for n in range(len(replay)):
        length = int(replay.length_N[n])
        assert (replay.title_NL[n, length:] == -1).all()
        assert (replay.time_NL[n, :length] == replay.title_NL[n, :length] * 10).all()
        assert (replay.action_NL[n, :length] == replay.title_NL[n, :length] % 5).all()
        held.append(replay.title_NL[n, :length].tolist())
    return held


def test_a_window_grows_with_its_user_until_half_of_it_is_new() -> None:
    replay = DatasetProducer(8, 6)
    for many in (1, 2, 4):
        add(replay, "u", many)
    assert windows(replay) == [[0, 1, 2, 3]]
    add(replay, "u", 5)
    assert windows(replay) == [[0, 1, 2, 3], [0, 1, 2, 3, 4]]
    for many in (6, 7, 8, 9):
        add(replay, "u", many)
    assert windows(replay) == [[0, 1, 2, 3], [2, 3, 4, 5, 6, 7], [3, 4, 5, 6, 7, 8]]


def test_users_do_not_disturb_each_other_and_the_oldest_windows_go() -> None:
    replay = DatasetProducer(3, 4)
    for n, user in enumerate("abcd"):
        add(replay, user, 2, first=10 * n)
    assert sorted(windows(replay)) == [[10, 11], [20, 21], [30, 31]]
    add(replay, "a", 3)  # its window is gone: a new one, and b's goes
    assert sorted(windows(replay)) == [[0, 1, 2], [20, 21], [30, 31]]
    assert len(replay.open) <= 3


def test_a_user_who_was_forgotten_and_comes_back_begins_another_window() -> None:
    replay = DatasetProducer(8, 6)
    add(replay, "u", 9)
    add(replay, "u", 1, first=50)
    assert windows(replay) == [[3, 4, 5, 6, 7, 8], [50]]


def test_newer_windows_are_drawn_more_often_and_all_are() -> None:
    replay, random = DatasetProducer(10, 4), np.random.default_rng(1)
    assert replay.sample(0, random).tolist() == []
    for n in range(14):
        add(replay, f"u{n}", 2, first=n)
    counts = np.bincount(replay.sample(4_000, random), minlength=10)
    by_age = counts[(replay.written - 1 - np.arange(10)) % 10]
    assert (by_age > 0).all()
    assert by_age[:3].sum() > 1.5 * by_age[-3:].sum()
    few = DatasetProducer(10, 4)
    add(few, "u", 2)
    assert set(few.sample(20, random).tolist()) == {0}


def test_forgotten_titles_become_unknown() -> None:
    replay = DatasetProducer(4, 4)
    add(replay, "u", 4)
    replay.evict_titles(np.array([1, 3]))
    assert replay.title_NL[0].tolist() == [0, -1, 2, -1]
    assert replay.length_N[0] == 4


@pytest.mark.parametrize("steps", [3, 60])
def test_a_restart_changes_nothing_that_follows(steps: int) -> None:
    random, one, other = np.random.default_rng(2), DatasetProducer(6, 8), DatasetProducer(6, 8)
    many: dict[str, int] = {}

    def act(replays: list[DatasetProducer], steps: int) -> None:
        for _ in range(steps):
            user = f"u{random.integers(9)}"
            many[user] = many.get(user, 0) + int(random.integers(1, 3))
            for replay in replays:
                add(replay, user, many[user])

    act([one], steps)
    state = one.state_dict()
    other.load_state_dict(state)
    assert differences(other.state_dict(), state) == []
    act([one, other], 40)
    assert differences(other.state_dict(), one.state_dict()) == []
    a, b = np.random.default_rng(3), np.random.default_rng(3)
    assert one.sample(50, a).tolist() == other.sample(50, b).tolist()


def test_all_windows_of_a_forgotten_user_are_emptied_and_the_others_stay() -> None:
    replay = DatasetProducer(8, 6)
    for many in (1, 5, 9, 13):
        add(replay, "u", many)
        add(replay, "v", many, first=50)
    before = windows(replay)
    replay.erase_user("u")
    replay.erase_user("nobody")
    assert windows(replay) == [[] if window[0] < 50 else window for window in before]
    assert "u" not in replay.state_dict()["users"]
    add(replay, "u", 1, first=30)
    assert [30] in windows(replay)


def test_a_buffer_from_before_windows_had_owners_keeps_those_it_can_still_forget() -> None:
    replay, other = DatasetProducer(8, 6), DatasetProducer(8, 6)
    for many in (1, 5, 9):
        add(replay, "u", many)
    add(replay, "v", 2, first=50)
    state = replay.state_dict()
    del state["owner_N"]
    other.load_state_dict(state)
    assert [window for window in windows(other) if window] == windows(replay)[-2:]
    other.erase_user("u")
    assert [window for window in windows(other) if window] == [[50, 51]]
