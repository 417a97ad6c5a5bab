"""The window of recent popularity is chosen by the previous evaluation window."""

import math

from model.metrics.baselines import RECENT_WINDOWS
from model.metrics.recent_window import FIRST_WINDOW, BestRecentWindow


def ranks(best: str, rank: float = 1.0) -> dict[str, float]:
    """The ranks of one event: `rank` for one window, a worse one for the others."""
    return {**dict.fromkeys(RECENT_WINDOWS, math.inf), "popularity": 1.0, best: rank}


def test_window_of_the_previous_evaluation_window_is_used() -> None:
    choice = BestRecentWindow(events=3)
    used = []
    for best in ("popularity_1h",) * 3 + ("popularity_7d",) * 3 + ("popularity_30d",) * 2:
        used.append(choice.name)
        choice.add(ranks(best))
    assert used == [FIRST_WINDOW] * 3 + ["popularity_1h"] * 3 + ["popularity_7d"] * 2


def test_choice_follows_the_mean_of_reciprocal_ranks() -> None:
    choice = BestRecentWindow(events=3)
    for best, rank in (("popularity_1h", 1.0), ("popularity_7d", 2.5), ("popularity_7d", 2.5)):
        choice.add(ranks(best, rank))
    assert choice.name == "popularity_1h"  # 1 against 0.8; by mean rank or by hits it would be the other


def test_restored_choice_continues_identically() -> None:
    original, restored = BestRecentWindow(events=4), BestRecentWindow(events=4)
    for best in ("popularity_7d", "popularity_7d", "popularity_1h"):
        original.add(ranks(best))
    restored.load_state_dict(original.state_dict())
    for choice in (original, restored):
        choice.add(ranks("popularity_1h", 3.0))
    assert restored.name == original.name == "popularity_7d"
    assert restored.state_dict() == original.state_dict()
