"""The verdict on a paired difference, and its text form, the same in every experiment."""

from collections.abc import Mapping
from typing import Final

MIN_USERS: Final = 10  # an interval over fewer users is too narrow to trust; over one user it has no width at all
BETTER, WORSE, INCONCLUSIVE = VERDICTS = ("BETTER", "WORSE", "INCONCLUSIVE")


def verdict(gain: Mapping[str, float] | None) -> str:
    """One of VERDICTS: BETTER or WORSE if the 95 % CI excludes zero, else INCONCLUSIVE."""
    if gain is None or gain["users"] < MIN_USERS or gain["low"] <= 0 <= gain["high"]:
        return INCONCLUSIVE
    return BETTER if gain["low"] > 0 else WORSE


def format_ci(gain: Mapping[str, float]) -> str:
    """A difference with its confidence interval, such as `+0.0012 [+0.0003, +0.0021]`."""
    return f"{gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"


def format_size(gain: Mapping[str, float]) -> str:
    """The number of events and users that a difference was measured on."""
    return f"{gain['events']:,.0f} events, {gain['users']:,.0f} users"
