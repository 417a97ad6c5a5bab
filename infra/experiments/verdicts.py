"""How studies say what an interval tells, so that all say it alike."""

from collections.abc import Mapping
from typing import Final

FEW: Final = 10  # users; of fewer an interval tells little, and of one it has no width at all
BETTER, WORSE, UNTOLD = JUDGEMENTS = ("better", "worse", "no difference that can be told")


def told(gain: Mapping[str, float]) -> str:
    """A gain with its interval."""
    return f"{gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"


def judged(gain: Mapping[str, float] | None) -> str:
    """What an interval says of a gain, one of JUDGEMENTS."""
    if gain is None or gain["users"] < FEW or gain["low"] <= 0 <= gain["high"]:
        return UNTOLD
    return BETTER if gain["low"] > 0 else WORSE
