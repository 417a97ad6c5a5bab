"""The replay buffer: how windows grow, stay, are sampled, evicted, erased and restored."""

import numpy as np
import pytest

from model.sequence.experience_replay import ReplayBuffer
from tests.support.learner import state_differences


def add(buffer: ReplayBuffer, user: str, events: int, first: int = 0) -> None:
    """Add a history of `events` events with titles numbered from `first`."""
    rows = np.arange(first, first + events, dtype=np.int64)
    buffer.add(user, rows, rows * 10, rows % 5, events)


def windows(buffer: ReplayBuffer) -> list[list[int]]:
    """Titles of each window, by position in the ring."""
    held = []
    for n in range(len(buffer)):
        length = int(buffer.length_N[n])
        assert (buffer.title_NL[n, length:] == -1).all()
        assert (buffer.time_NL[n, :length] == buffer.title_NL[n, :length] * 10).all()
        assert (buffer.action_NL[n, :length] == buffer.title_NL[n, :length] % 5).all()
        held.append(buffer.title_NL[n, :length].tolist())
    return held


def test_window_grows_until_half_of_it_is_new() -> None:
    buffer = ReplayBuffer(8, 6)
    for events in (1, 2, 4):
        add(buffer, "u", events)
    assert windows(buffer) == [[0, 1, 2, 3]]
    add(buffer, "u", 5)
    assert windows(buffer) == [[0, 1, 2, 3], [0, 1, 2, 3, 4]]
    for events in (6, 7, 8, 9):
        add(buffer, "u", events)
    assert windows(buffer) == [[0, 1, 2, 3], [2, 3, 4, 5, 6, 7], [3, 4, 5, 6, 7, 8]]


def test_full_buffer_overwrites_the_oldest_window() -> None:
    buffer = ReplayBuffer(3, 4)
    for n, user in enumerate("abcd"):
        add(buffer, user, 2, first=10 * n)
    assert sorted(windows(buffer)) == [[10, 11], [20, 21], [30, 31]]
    add(buffer, "a", 3)  # its window was overwritten: it gets a new one, which overwrites b's
    assert sorted(windows(buffer)) == [[0, 1, 2], [20, 21], [30, 31]]
    assert len(buffer.open_windows) <= 3


def test_user_with_many_events_holds_a_bounded_number_of_windows() -> None:
    buffer = ReplayBuffer(1_024, 4)
    for n in range(30):
        add(buffer, f"u{n}", 2, first=10 * n)
    for events in range(1, 300):
        add(buffer, "heavy", events)
    held = windows(buffer)
    assert (buffer.max_user_windows, len(held)) == (16, 30 + 16)
    assert held[:30] == [[10 * n, 10 * n + 1] for n in range(30)]
    assert [295, 296, 297, 298] in held


def test_returning_evicted_user_starts_a_new_window() -> None:
    buffer = ReplayBuffer(8, 6)
    add(buffer, "u", 9)
    add(buffer, "u", 1, first=50)
    assert windows(buffer) == [[3, 4, 5, 6, 7, 8], [50]]


def test_newer_windows_are_sampled_more_often() -> None:
    buffer, random = ReplayBuffer(10, 4), np.random.default_rng(1)
    assert buffer.sample(0, random).tolist() == []
    for n in range(14):
        add(buffer, f"u{n}", 2, first=n)
    counts = np.bincount(buffer.sample(4_000, random), minlength=10)
    by_age = counts[(buffer.windows_written - 1 - np.arange(10)) % 10]
    assert (by_age > 0).all()
    assert by_age[:3].sum() > 1.5 * by_age[-3:].sum()
    few = ReplayBuffer(10, 4)
    add(few, "u", 2)
    assert set(few.sample(20, random).tolist()) == {0}


def test_evicted_titles_become_unknown() -> None:
    buffer = ReplayBuffer(4, 4)
    add(buffer, "u", 4)
    buffer.evict_titles(np.array([1, 3]))
    assert buffer.title_NL[0].tolist() == [0, -1, 2, -1]
    assert buffer.length_N[0] == 4


@pytest.mark.parametrize("steps", [3, 60])
def test_restored_buffer_continues_identically(steps: int) -> None:
    random, original, restored = np.random.default_rng(2), ReplayBuffer(6, 8), ReplayBuffer(6, 8)
    events: dict[str, int] = {}

    def add_random(buffers: list[ReplayBuffer], steps: int) -> None:
        for _ in range(steps):
            user = f"u{random.integers(9)}"
            events[user] = events.get(user, 0) + int(random.integers(1, 3))
            for buffer in buffers:
                add(buffer, user, events[user])

    add_random([original], steps)
    state = original.state_dict()
    restored.load_state_dict(state)
    assert state_differences(restored.state_dict(), state) == []
    add_random([original, restored], 40)
    assert state_differences(restored.state_dict(), original.state_dict()) == []
    a, b = np.random.default_rng(3), np.random.default_rng(3)
    assert original.sample(50, a).tolist() == restored.sample(50, b).tolist()


def test_erase_user_empties_all_windows_of_the_user() -> None:
    buffer = ReplayBuffer(8, 6)
    for events in (1, 5, 9, 13):
        add(buffer, "u", events)
        add(buffer, "v", events, first=50)
    before = windows(buffer)
    buffer.erase_user("u")
    buffer.erase_user("nobody")
    assert windows(buffer) == [[] if window[0] < 50 else window for window in before]
    assert "u" not in buffer.state_dict()["users"]
    add(buffer, "u", 1, first=30)
    assert [30] in windows(buffer)
