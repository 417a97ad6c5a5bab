"""The codes of actions never change, and ratings become actions."""

import pytest

from model.actions import ACTIONS, LIKING, TARGET_WEIGHTS, rating_action


def test_action_codes_are_those_in_stored_logs() -> None:
    assert {name: spec.code for name, spec in ACTIONS.items()} == {
        "impression": 1,
        "click": 2,
        "play": 3,
        "finish": 4,
        "like": 5,
        "dislike": 6,
        "purchase": 7,
        "rated low": 8,
        "rated fair": 9,
        "rated high": 10,
    }


def test_weights_and_likings_are_indexed_by_code() -> None:
    assert TARGET_WEIGHTS[0] == LIKING[0] == 0  # no action
    for spec in ACTIONS.values():
        assert (TARGET_WEIGHTS[spec.code], LIKING[spec.code]) == (spec.weight, spec.liking)
    assert [name for name, spec in ACTIONS.items() if spec.weight == 0] == ["impression", "dislike"]
    assert [name for name, spec in ACTIONS.items() if spec.liking < 0] == ["dislike", "rated low"]


LOW, FAIR, HIGH = "rated low", "rated fair", "rated high"


@pytest.mark.parametrize(("rating", "action"), [(0, LOW), (2.99, LOW), (3, FAIR), (3.5, FAIR), (4, HIGH), (5, HIGH)])
def test_rating_becomes_an_action(rating: float, action: str) -> None:
    assert rating_action(rating) == action
