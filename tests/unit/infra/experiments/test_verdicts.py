"""The verdict on a difference follows from its interval and its number of users."""

import pytest

from infra.experiments.verdicts import BETTER, INCONCLUSIVE, MIN_USERS, WORSE, format_ci, verdict


@pytest.mark.parametrize(
    ("gain", "expected"),
    [
        ({"low": 0.01, "high": 0.2, "users": 30}, BETTER),
        ({"low": -0.2, "high": -0.01, "users": 30}, WORSE),
        ({"low": -0.01, "high": 0.2, "users": 30}, INCONCLUSIVE),
        ({"low": 0.0, "high": 0.2, "users": 30}, INCONCLUSIVE),
        ({"low": 0.1, "high": 0.1, "users": MIN_USERS - 1}, INCONCLUSIVE),
        (None, INCONCLUSIVE),
    ],
)
def test_verdict_follows_from_interval_and_users(gain: dict[str, float] | None, expected: str) -> None:
    assert verdict(gain) == expected


def test_interval_is_formatted_with_signs() -> None:
    assert format_ci({"mean": 0.002, "low": -0.001, "high": 0.005}) == "+0.0020 [-0.0010, +0.0050]"
