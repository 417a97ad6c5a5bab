"""The recommender: lists, scores of other titles, titles launched after the checkpoint, slots for new titles."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model import checkpoint
from model.checkpoint import CheckpointError
from model.recommender import Recommender, UserContext
from model.setting_paths import MODEL_GROUPS, values_by_path
from model.state.stream_state import TitleMetadata
from streaming.records import Activity
from streaming.state.title_metadata import title_metadata
from tests.support.publish import SETTINGS, recommender, state, world


def context(activity: Activity) -> UserContext:
    seen = tuple(activity.titles)
    return UserContext(activity.user, activity.titles, activity.times, activity.actions, seen, activity.count)


USERS = 5


def users() -> list[UserContext]:
    """The users with the fewest events: they have the most candidates."""
    return [context(one) for one in sorted(world().newest().values(), key=lambda one: one.count)[:USERS]]


def now() -> int:
    return max(one.times[-1] for one in world().activities) + 3_600_000


def test_batch_of_users_equals_single_users() -> None:
    version = recommender()
    batch = version.recommend(users(), now(), 10)
    for user, ranked in zip(users(), batch, strict=True):
        (single,) = version.recommend([user], now(), 10)
        assert single.titles == ranked.titles
        for horizon in (0, 2):
            np.testing.assert_allclose(single.scores[horizon], ranked.scores[horizon], atol=1e-4)


def test_lists_are_sorted_and_exclude_seen_titles() -> None:
    for one, ranked in zip(users(), recommender().recommend(users(), now(), 7), strict=True):
        for horizon, titles in ranked.titles.items():
            assert len(titles) == 7
            assert not set(titles) & set(one.seen or ())
            assert list(ranked.scores[horizon]) == sorted(ranked.scores[horizon], reverse=True)


def test_score_of_a_listed_title_equals_its_list_score() -> None:
    version = recommender()
    ranked = version.recommend(users(), now(), 10)
    titles = [[one.titles[0][4], one.titles[2][0]] for one in ranked]
    for one, scored, score_HM in zip(ranked, titles, version.score(titles, users(), ranked), strict=True):
        for h, horizon in enumerate((0, 2)):
            for m, title in enumerate(scored):
                if title in one.titles[horizon]:
                    listed = one.scores[horizon][one.titles[horizon].index(title)]
                    assert score_HM[h, m] == pytest.approx(listed, abs=1e-4)


def test_titles_seen_by_the_learner_are_excluded_too() -> None:
    version = recommender()
    user = users()[0]
    (ranked,) = version.recommend([replace(user, seen=())], now(), 60)
    assert not set(ranked.titles[0]) & set(user.titles)
    (with_seen,) = version.recommend([replace(user, seen=None)], now(), 60)
    assert set(user.titles) <= set(with_seen.titles[0])


def test_single_title_updates_equal_one_batch_update() -> None:
    extra = [title_metadata(world().title(launch, 900)) for launch in world().data.launches[:3]]
    new = [one._replace(title=f"new-{n}", year=1999) for n, one in enumerate(extra)]
    one_by_one, at_once = recommender(), recommender()
    for title in new:
        one_by_one.update_titles([title])
    at_once.update_titles(new)
    np.testing.assert_allclose(one_by_one.sequence.e_VP.numpy(), at_once.sequence.e_VP.numpy(), atol=1e-6)
    assert one_by_one.recommend(users(), now())[0].titles == at_once.recommend(users(), now())[0].titles


def test_title_encoder_equals_the_versions_encoding() -> None:
    version, title = recommender(), title_metadata(world().titles[7])._replace(title="new")
    version.update_titles([title])
    row = version.stream_state.catalog.rows["new"]
    np.testing.assert_allclose(version.title_encoder()(title.semantic), version.sequence.e_VP[row].numpy(), atol=1e-6)


def test_withdrawn_title_is_not_a_candidate_until_relaunched() -> None:
    version, title = recommender(), title_metadata(world().titles[7])
    version.update_titles([title._replace(withdrawn=True, stamp=title.stamp + 1)])
    assert not version.is_candidate(title.title)
    assert all(title.title not in one.titles[0] for one in version.recommend(users(), now(), 60))
    version.update_titles([title._replace(stamp=title.stamp + 2)])
    assert version.is_candidate(title.title)


def test_unknown_user_and_title_without_metadata_are_ranked() -> None:
    version = recommender()
    version.update_titles([TitleMetadata("bare", np.zeros(0, np.float32), (), None, None, False)])
    (ranked,) = version.recommend([UserContext("", [], [], [], (), 0)], now(), 100)
    assert "bare" in ranked.titles[0]
    assert all(np.isfinite(scores).all() for scores in ranked.scores.values())


def test_version_is_loaded_with_the_settings_it_was_learned_with(tmp_path: Path) -> None:
    url = str(tmp_path / "1")
    checkpoint.save(url, state(), {"step": 1, "settings": values_by_path(SETTINGS, MODEL_GROUPS)})
    loaded, made = Recommender.load(url), recommender()
    assert loaded.sequence.settings == SETTINGS.sequence
    for a, b in zip(loaded.recommend(users(), now()), made.recommend(users(), now()), strict=True):
        assert a.titles == b.titles
    with pytest.raises(CheckpointError):
        Recommender.load(url + "-none")


def test_new_title_slots_expose_new_titles_in_every_list() -> None:
    version = recommender()
    new = [title_metadata(world().titles[n])._replace(title=f"new-{n}", year=None) for n in range(6)]
    version.update_titles(new)
    for ranked in version.recommend(users(), now(), 12, 2):
        for titles in ranked.titles.values():
            assert len(titles) == len(set(titles)) == 12
            assert version.new_titles.competing_V[version.stream_state.catalog.rows_of(titles)].sum() >= 2


def test_version_evicts_titles_beyond_the_maximum() -> None:
    state_settings = replace(SETTINGS.stream_state, max_titles=len(world().titles) + 10)
    version = Recommender.from_state(state(), replace(SETTINGS, stream_state=state_settings))
    flood = [TitleMetadata(f"flood {n}", world_text(n), (), None, None, False, recorded=now() + n) for n in range(200)]
    for start in range(0, len(flood), 20):
        version.update_titles(flood[start : start + 20])
    assert len(version.stream_state.catalog.rows) <= state_settings.max_titles
    assert version.is_candidate("flood 199")
    for ranked in version.recommend(users(), now(), 12, 2):
        assert len(set(ranked.titles[0])) == 12
        assert set(ranked.titles[0]) <= set(version.stream_state.catalog.rows)


def world_text(n: int) -> NDArray[np.float32]:
    """The text embedding of one of the world's titles."""
    return title_metadata(world().titles[n % len(world().titles)]).semantic
