"""Which events the live evaluation scores, and which window of recent popularity it uses."""

import copy
import math

import numpy as np
import pytest

from model.learner import RankedEvent
from model.metrics.baselines import Baselines
from model.metrics.recent_window import EVALUATION_WINDOW, FIRST_WINDOW
from streaming.state.live_evaluation import LIVE_VARIANTS, LiveEvaluation

TITLES = [f"t{n}" for n in range(8)]
HOUR_MS = 3_600_000


def event(n: int, title: str, **changes: object) -> RankedEvent:
    """An event of a new user."""
    whole = RankedEvent(f"u{n}", title, n * 60_000, 0, 0, {"full": 2.0})
    return whole._replace(**changes)  # type: ignore[arg-type]


def launched() -> LiveEvaluation:
    evaluation = LiveEvaluation(repeats=False)
    for title in TITLES:
        evaluation.set_candidate(title, is_candidate=True)
    return evaluation


def drifting_events(count: int) -> list[RankedEvent]:
    """One event per minute. The popular title changes every two hours, so the last hour predicts best."""
    return [event(n, TITLES[n // 120 % len(TITLES)]) for n in range(count)]


def test_recent_popularity_uses_the_best_window_of_the_previous_evaluation_window() -> None:
    evaluation, baselines, expected = launched(), Baselines(), []
    for title in TITLES:
        baselines.launch(title)
    events = drifting_events(EVALUATION_WINDOW + 200)
    for n, one in enumerate(events):
        by_window = baselines.rank(one.user, one.title, one.ts)
        expected.append(by_window[FIRST_WINDOW if n < EVALUATION_WINDOW else "popularity_1h"])
        baselines.count(one.user, one.title, one.ts)
        evaluation.add(one)
    mrr = evaluation.rankings["popularity_recent"].report()["mrr"]["all"]
    assert mrr == pytest.approx(np.mean([1 / rank for rank in expected]))
    assert evaluation.recent_window.name == "popularity_1h"


def test_only_ranked_events_on_unseen_titles_are_scored() -> None:
    evaluation = launched()
    assert evaluation.add(event(1, "t1")) == 2.0
    assert evaluation.add(event(1, "t1")) is None  # the user has seen the title
    assert evaluation.add(event(2, "t1", ranks={})) is None  # not in the sample of ranked events
    assert evaluation.add(event(3, "t9", ranks={"full": math.inf}, is_learned=False)) == math.inf
    assert [ranking.scored()["all"] for ranking in evaluation.rankings.values()] == [2] * len(LIVE_VARIANTS)
    assert evaluation.unknown_title_events == 1
    assert (evaluation.baselines.title_events("t1"), evaluation.baselines.title_events("t9")) == (3, 0)


def test_restored_evaluation_continues_identically() -> None:
    """The state is saved in the middle of an evaluation window."""
    original, restored = launched(), LiveEvaluation(repeats=False)
    events = drifting_events(EVALUATION_WINDOW + 40)
    for one in events[:300]:
        original.add(one)
    restored.load_state_dict(copy.deepcopy(original.state_dict()))
    for evaluation in (original, restored):
        for one in events[300:]:
            evaluation.add(one)
    assert original.recent_window.name != FIRST_WINDOW
    np.testing.assert_equal(restored.state_dict(), original.state_dict())
