"""Launches and withdrawals of one title, in every order in which the two topics may be read."""

from itertools import permutations

import pytest

from streaming.errors import StreamError
from streaming.state.title_state import (
    TitleChange,
    TitleContent,
    TitleLaunch,
    TitleState,
    Withdrawal,
    apply,
    check_format,
)

FIRST, SECOND = TitleContent("first"), TitleContent("second")


def launch(content: TitleContent, appended: int) -> TitleLaunch:
    return TitleLaunch("t", content, appended, appended, appended)


def run(*items: TitleLaunch | Withdrawal) -> tuple[TitleState, list[TitleChange]]:
    state, changes = None, []
    for item in items:
        state, change = apply(state, item)
        changes += [change] if change else []
    assert state is not None
    return state, changes


def final(*items: TitleLaunch | Withdrawal) -> tuple[str, bool]:
    last = run(*items)[1][-1]
    return last.content.name, last.withdrawn


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize(
    ("withdrawn_at", "withdrawn"), [(5, False), (10, False), (15, False), (19, False), (20, True), (25, True)]
)
def test_later_append_time_wins_whichever_topic_is_read_first(place: int, withdrawn_at: int, withdrawn: bool) -> None:
    items: list[TitleLaunch | Withdrawal] = [launch(FIRST, 10), launch(SECOND, 20)]
    items.insert(place, Withdrawal("t", withdrawn_at, 0))
    assert final(*items) == ("second", withdrawn)


def test_order_of_withdrawals_does_not_matter() -> None:
    withdrawals = [Withdrawal("t", appended, 0) for appended in (5, 15, 25)]
    for order in permutations(withdrawals):
        state, _ = run(launch(FIRST, 20), *order)
        assert state.withdrawn
        assert state.withdrawn_at == 25


def test_stamps_increase_and_withdrawal_keeps_content_and_launch_time() -> None:
    _, changes = run(launch(FIRST, 10), Withdrawal("t", 20, 4), launch(FIRST, 30))
    assert [(c.stamp, c.withdrawn, c.content, c.launched) for c in changes] == [
        (10_000, False, FIRST, 10),
        (20_000, True, FIRST, 10),
        (30_000, False, FIRST, 10),
    ]
    assert (changes[1].appended, changes[1].offset) == (20, 4)


def test_record_that_changes_nothing_is_not_passed_on() -> None:
    _, changes = run(
        launch(FIRST, 10), launch(FIRST, 11), Withdrawal("t", 5, 0), Withdrawal("t", 20, 0), Withdrawal("t", 21, 0)
    )
    assert len(changes) == 2


def test_withdrawal_of_an_unknown_title_is_passed_on_once() -> None:
    state, changes = run(Withdrawal("t", 20, 0), Withdrawal("t", 21, 0))
    assert [(change.withdrawn, change.content) for change in changes] == [(True, TitleContent())]
    assert apply(state, launch(FIRST, 22))[1] == TitleChange("t", FIRST, 22, 22_000, False, 22, 22)


def test_state_of_another_format_is_refused() -> None:
    state, _ = run(launch(FIRST, 10))
    assert check_format(tuple(state)) == state
    with pytest.raises(StreamError, match="format 99"):
        check_format((99, *state[1:]))
