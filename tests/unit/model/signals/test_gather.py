"""Tests of the gathered signals: sums over titles and users, and the user's profile, equal plain loops."""

from collections import Counter
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray

from model.actions import LIKING
from model.signals.fill import Scratch, UserSignals, new_scratch
from model.signals.gather import SESSION_MS, gather_user_signals
from model.signals.inputs import title_signals, user_query
from model.signals.table import COLUMN, DENSE_SIGNALS, STATICS, SUMS
from model.state.catalog import genre_codes
from tests.support.signals import COUNT, GENRES, NOW, TITLES, USERS, WORLD, mean_year, newest_events

INV_SQRT_COUNT: Final = [1 / (COUNT[title] + 1) ** 0.5 for title in range(TITLES)]


def gathered(user: int, scratch: Scratch | None = None) -> UserSignals:
    """The signals of one user."""
    state = WORLD.stream_state
    scratch = scratch or new_scratch(TITLES, len(state.user_store.interactions.user_count_U))
    query = user_query(state, WORLD.history(user), NOW)
    return gather_user_signals(query, title_signals(state), state.counters, scratch)


def summed(user: int, name: str) -> NDArray[np.float32]:
    """A sum over pairs, for every title."""
    value_V: NDArray[np.float32] = gathered(user).pool.summed_PF[:TITLES, COLUMN[name] - STATICS]
    return value_V


def matched(user: int, name: str) -> NDArray[np.float32]:
    """A match of each title with the user."""
    value_V: NDArray[np.float32] = gathered(user).pool.matched_FP[COLUMN[name] - STATICS - SUMS, :TITLES]
    return value_V


def pair_counts() -> dict[str, Counter[tuple[int, int]]]:
    """Count the three kinds of pairs by looping over all users' events."""
    names = ("transitions", "session_cooccurrence", "cooccurrence")
    tables: dict[str, Counter[tuple[int, int]]] = {name: Counter() for name in names}
    for history in WORLD.histories.values():
        titles = [event[0] for event in history]
        for i, title in enumerate(titles):
            before = titles[:i][::-1]
            if before and before[0] != title:
                tables["transitions"][before[0], title] += 1
            others = [other for other in before[:10] if other != title]
            for gap, other in enumerate(others):
                tables["session_cooccurrence"][other, title] += 0.8**gap  # type: ignore[assignment]
            for other in before[:100]:
                if other != title:
                    tables["cooccurrence"][other, title] += 1
                    tables["cooccurrence"][title, other] += 1
    return tables


PAIRS: Final = pair_counts()


def sums(user: int) -> dict[str, NDArray[np.float64]]:
    """Compute the signals that are sums over pairs, for every title."""
    history = newest_events(user)
    recent = list(enumerate(h for h, _, _ in history))
    transitions, session, cooccurrence = PAIRS["transitions"], PAIRS["session_cooccurrence"], PAIRS["cooccurrence"]
    total = Counter[int]()
    for (h, _), n in transitions.items():
        total[h] += n
    expected = {name: np.zeros(TITLES) for name in DENSE_SIGNALS}
    for c in range(TITLES):
        shared = [cooccurrence[h, c] * INV_SQRT_COUNT[h] * INV_SQRT_COUNT[c] for h, _, _ in history]
        expected["transition last"][c] = transitions[history[0][0], c]
        expected["transition recent"][c] = sum(0.6**j * transitions[h, c] / (total[h] + 3) for j, h in recent[:5])
        expected["session cooccurrence recent"][c] = sum(0.8**j * session[h, c] for j, h in recent[:10])
        cosines = (0.8**j * session[h, c] * INV_SQRT_COUNT[h] * INV_SQRT_COUNT[c] for j, h in recent[:10])
        expected["session cooccurrence cosine"][c] = sum(cosines)
        expected["cooccurrence recent"][c] = sum(0.93**j * value for j, value in enumerate(shared))
        expected["cooccurrence all"][c] = sum(shared)
        expected["cooccurrence max"][c] = max(shared)
        expected["cooccurrence liked"][c] = max(sum(LIKING[history[j][2]] * value for j, value in enumerate(shared)), 0)
    return {name: np.sqrt(value) for name, value in expected.items()}


@pytest.mark.parametrize(
    "name",
    [
        *("transition last", "transition recent", "session cooccurrence recent", "session cooccurrence cosine"),
        *("cooccurrence recent", "cooccurrence all", "cooccurrence max", "cooccurrence liked"),
    ],
)
def test_pair_signals_equal_a_count_of_the_events(name: str) -> None:
    for user in range(USERS):
        expected = sums(user)[name]
        assert expected.any()
        np.testing.assert_allclose(summed(user, name), expected, rtol=1e-4, atol=1e-6)


def test_knn_users_share_recent_and_rare_titles() -> None:
    for user in range(USERS):
        overlap: Counter[int] = Counter()
        for j, (h, _, _) in enumerate(newest_events(user)[:20]):
            for other, (title, _, _) in WORLD.events:
                if title == h and other != user:
                    overlap[other] += 0.93**j / (1 + np.log1p(COUNT[h]))  # type: ignore[assignment]
        expected = np.zeros(TITLES)
        for other, weight in overlap.items():
            for title, _, _ in WORLD.histories[other]:
                expected[title] += weight / (len(WORLD.histories[other]) + 10) ** 0.5
        np.testing.assert_allclose(summed(user, "knn users"), np.sqrt(expected), rtol=1e-4, atol=1e-6)


def test_genre_affinity_is_the_mean_liking_of_the_titles_genres() -> None:
    for user in range(USERS):
        history = newest_events(user)
        liking: Counter[str] = Counter()
        for title, _, action in history:
            for genre in WORLD.genres[title]:
                liking[genre] += LIKING[action] / len(history)  # type: ignore[assignment]
        expected = [np.mean([liking[genre] for genre in WORLD.genres[title]]) for title in range(TITLES)]
        np.testing.assert_allclose(matched(user, "genre affinity"), expected, rtol=1e-4, atol=1e-5)
    assert len(set(genre_codes(GENRES)[:3].tolist())) == 3


def test_year_proximity_decays_with_distance_from_the_mean_year() -> None:
    for user in range(USERS):
        mean = mean_year(user)
        assert gathered(user).facts.mean_year == pytest.approx(mean, rel=1e-6)
        proximity = [0.3 if year is None else 1 / (1 + ((year - mean) / 8) ** 2) for year in WORLD.years]
        np.testing.assert_allclose(matched(user, "year proximity"), proximity, rtol=1e-3)


def test_user_profile_has_session_events_idle_time_and_liking() -> None:
    for user in range(USERS):
        history, facts = newest_events(user), gathered(user).facts
        assert facts.session_events == sum(NOW - ts < SESSION_MS for _, ts, _ in history)
        assert facts.idle_time == pytest.approx(np.log1p((NOW - history[0][1]) / 1000), rel=1e-6)
        assert facts.mean_liking == pytest.approx(np.mean([LIKING[action] for _, _, action in history]), rel=1e-5)


def test_unknown_user_has_no_sums_and_no_profile() -> None:
    signals = gathered(USERS + 1)
    assert not signals.pool.summed_PF.any()
    assert not signals.genre_profile_2G.any()
    assert signals.facts.year_weight == 0
    assert set(matched(USERS + 1, "year proximity").tolist()) == {np.float32(0.3)}


def test_buffers_of_another_user_change_nothing() -> None:
    scratch = new_scratch(TITLES, len(WORLD.stream_state.user_store.interactions.user_count_U))
    gathered(3, scratch)
    used, new = gathered(1, scratch), gathered(1)
    assert used.facts == new.facts
    for name in ("similarity_U", "genre_profile_2G", "year_profile_Y"):
        np.testing.assert_array_equal(getattr(used, name), getattr(new, name), err_msg=name)
    for name in ("summed_PF", "matched_FP", "slot_V", "row_P", "mark_P"):
        np.testing.assert_array_equal(getattr(used.pool, name), getattr(new.pool, name), err_msg=name)
