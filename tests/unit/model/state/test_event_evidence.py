"""The evidence of events: repeats, new users, and backdated events."""

import numpy as np
import pytest

from model.settings import EvidenceSettings
from model.state.event_evidence import DAY_MS, EvidenceRatio, repeat_number


def ratio_after(user_events: int, events: int = 5_000) -> EvidenceRatio:
    """The state after many events of users with this many earlier ones."""
    ratio = EvidenceRatio(EvidenceSettings())
    for _ in range(events):
        ratio.weigh(user_events, 1)
    return ratio


def test_event_of_an_established_user_counts_in_full() -> None:
    ratio = EvidenceRatio(EvidenceSettings())
    assert [ratio.weigh(events, 1)[:2] for events in (20, 19, 300)] == [(1.0, 0.0)] * 3


def test_users_become_established_with_their_events() -> None:
    evidence = [ratio_after(100).weigh(events, 1) for events in (0, 1, 4, 9, 18, 19)]
    established = [one.established for one in evidence]
    assert established == sorted(established)
    assert [established[0], established[-1]] == pytest.approx([1 / 400, 1])
    assert [one.established + one.new for one in evidence] == pytest.approx([1] * 6)


def test_titles_may_have_more_new_users_where_the_stream_has() -> None:
    few, many = ratio_after(100).weigh(0, 1), ratio_after(0).weigh(0, 1)
    assert few.max_ratio == 1.0
    assert many.max_ratio == pytest.approx(2 * 399)


def test_repeats_within_a_day_count_less_and_end() -> None:
    established = [ratio_after(50, 1).weigh(50, repeat).established for repeat in (1, 2, 3, 4, 100)]
    assert established == [1, 1 / 4, 1 / 9, 0, 0]


def test_limits_can_be_switched_off() -> None:
    ratio = EvidenceRatio(EvidenceSettings(established_events=1, daily_repeats=0))
    assert [ratio.weigh(events, repeat)[:2] for events, repeat in ((100, 1), (0, 1), (0, 50))] == [(1, 0)] * 3


def test_restored_ratio_continues_identically() -> None:
    ratio, restored = ratio_after(13, 100), EvidenceRatio(EvidenceSettings())
    restored.load_state_dict(ratio.state_dict())
    assert restored.weigh(3, 1) == ratio.weigh(3, 1)
    assert restored.state_dict() == ratio.state_dict()


def repeat(times: list[int], rows: list[int], index: int, counted: str = "", clock: float = 0) -> int:
    """`counted` has a dot for each event that was not counted before."""
    counted_L = np.array([mark != "." for mark in counted or "x" * len(rows)])
    return repeat_number(np.array(rows), np.array(times), counted_L, index, clock)


def test_only_counted_events_on_the_same_title_within_a_day_are_repeats() -> None:
    times = [0, 1, DAY_MS, DAY_MS + 1, DAY_MS + 2]
    assert [repeat(times, [7, 8, 7, 7, 7], index) for index in (2, 0, 1)] == [3, 1, 1]
    assert repeat(times, [7, 8, 7, 7, 7], 4, counted="xx.xx") == 2
    assert repeat(times, [7, 8, 7, 7, 7], 3, counted="xxxx.") == 2


def test_backdated_event_is_compared_with_all_events_on_its_title() -> None:
    clock = 1_000 * DAY_MS
    times = [2 * day * DAY_MS for day in range(10)]
    assert repeat(times, [7] * 10, 0, clock=clock) == 10
    assert repeat([*times, 1_000 * DAY_MS], [7] * 11, 10, clock=clock) == 1
