"""A version at work: lists, scores of further titles that compare with them, and titles that came after it."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from model import checkpoint
from model.checkpoint import CheckpointError
from model.recommender import Recommender, Viewer, choose
from model.state.stream_state import TitleMetadata
from streaming.records import Activity
from streaming.state.log_learner import title_metadata
from tests.support.publish import SETTINGS, recommender, state, world


def viewer(activity: Activity, seen: bool = True) -> Viewer:
    left_out = tuple(activity.titles) if seen else None
    return Viewer(activity.user, activity.titles, activity.times, activity.actions, left_out, activity.count)


VIEWERS = 5


def viewers() -> list[Viewer]:
    """Those who have seen least: there is much to choose from."""
    return [viewer(one) for one in sorted(world().newest().values(), key=lambda one: one.count)[:VIEWERS]]


def now() -> int:
    return max(one.times[-1] for one in world().activities) + 3_600_000


def test_a_viewer_is_ranked_alone_as_among_others() -> None:
    version = recommender()
    together = version.recommend(viewers(), now(), 10)
    for one, ranked in zip(viewers(), together, strict=True):
        (alone,) = version.recommend([one], now(), 10)
        assert alone.titles == ranked.titles
        for horizon in (0, 2):
            np.testing.assert_allclose(alone.scores[horizon], ranked.scores[horizon], atol=1e-4)


def test_lists_are_sorted_hold_nothing_seen_and_as_many_as_are_asked_for() -> None:
    for one, ranked in zip(viewers(), recommender().recommend(viewers(), now(), 7), strict=True):
        for horizon, titles in ranked.titles.items():
            assert len(titles) == 7
            assert not set(titles) & set(one.seen or ())
            assert list(ranked.scores[horizon]) == sorted(ranked.scores[horizon], reverse=True)


def test_a_further_title_scores_what_it_would_have_scored_in_the_list() -> None:
    version = recommender()
    ranked = version.recommend(viewers(), now(), 10)
    asked = [[one.titles[0][4], one.titles[2][0]] for one in ranked]
    for one, titles, score_HT in zip(ranked, asked, version.score(asked, viewers(), ranked), strict=True):
        for place, horizon in enumerate((0, 2)):
            for column, title in enumerate(titles):
                if title in one.titles[horizon]:
                    listed = one.scores[horizon][one.titles[horizon].index(title)]
                    assert score_HT[place, column] == pytest.approx(listed, abs=1e-4)


def test_what_the_learner_saw_longer_ago_is_left_out_too() -> None:
    version = recommender()
    known = viewers()[0]
    (ranked,) = version.recommend([replace(known, seen=())], now(), 60)
    assert not set(ranked.titles[0]) & set(known.titles)
    (repeats,) = version.recommend([replace(known, seen=None)], now(), 60)
    assert set(known.titles) <= set(repeats.titles[0])


def test_titles_added_one_by_one_look_as_titles_encoded_all_at_once() -> None:
    extra = [title_metadata(world().title(launch, 900)) for launch in world().data.launches[:3]]
    fresh = [one._replace(title=f"new-{n}", year=1999) for n, one in enumerate(extra)]
    one_by_one, at_once = recommender(), recommender()
    for title in fresh:
        one_by_one.add([title])
    at_once.add(fresh)
    at_once.sequence.refresh(at_once.stream_state.catalog)
    np.testing.assert_allclose(one_by_one.sequence.e_VP.numpy(), at_once.sequence.e_VP.numpy(), atol=1e-6)
    assert one_by_one.recommend(viewers(), now())[0].titles == at_once.recommend(viewers(), now())[0].titles


def test_a_new_title_is_seen_alike_by_the_version_and_by_its_encoder() -> None:
    version, title = recommender(), title_metadata(world().titles[7])._replace(title="new")
    version.add([title])
    row = version.stream_state.catalog.rows["new"]
    np.testing.assert_allclose(version.encoder()(title.semantic), version.sequence.e_VP[row].numpy(), atol=1e-6)


def test_a_withdrawn_title_is_no_candidate_until_it_is_launched_again() -> None:
    version, title = recommender(), title_metadata(world().titles[7])
    version.add([title._replace(withdrawn=True)])
    assert not version.known(title.title)
    assert all(title.title not in one.titles[0] for one in version.recommend(viewers(), now(), 60))
    version.add([title])
    assert version.known(title.title)


def test_a_title_nobody_described_and_a_viewer_nobody_has_seen_are_ranked() -> None:
    version = recommender()
    version.add([TitleMetadata("bare", np.zeros(0, np.float32), (), None, None, False)])
    (ranked,) = version.recommend([Viewer("", [], [], [], (), 0)], now(), 100)
    assert "bare" in ranked.titles[0]
    assert all(np.isfinite(scores).all() for scores in ranked.scores.values())


def test_a_version_is_what_lies_in_its_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> None:
    url = str(tmp_path_factory.mktemp("checkpoint") / "1")
    checkpoint.save(url, state(), {"step": 1})
    loaded, made = Recommender.load(url, SETTINGS), recommender()
    for a, b in zip(loaded.recommend(viewers(), now()), made.recommend(viewers(), now()), strict=True):
        assert a.titles == b.titles
    with pytest.raises(CheckpointError):
        Recommender.load(url + "-none", SETTINGS)


def test_a_version_of_another_network_is_refused_in_a_sentence(tmp_path: Path) -> None:
    url, sequence = str(tmp_path / "1"), SETTINGS.sequence
    checkpoint.save(url, state(), {"settings": json.loads(json.dumps(asdict(SETTINGS)))})
    Recommender.load(url, SETTINGS)
    Recommender.load(url, replace(SETTINGS, repeats=True))  # not the network's business
    wider = replace(sequence, network=replace(sequence.network, width=2 * sequence.network.width))
    with pytest.raises(CheckpointError, match=r"another network .* give `publish` the model and the horizons"):
        Recommender.load(url, replace(SETTINGS, sequence=wider))


@pytest.mark.parametrize(
    ("fresh", "size", "kept", "chosen"),
    [
        ("......", 3, 0, "abc"),
        ("...xxx", 3, 0, "abc"),
        ("...xxx", 3, 1, "abd"),
        ("...xxx", 4, 2, "abde"),
        ("x..x.x", 3, 1, "abd"),  # that one would have made it anyway does not count
        (".....x", 4, 2, "abcf"),
        ("......", 4, 2, "abcd"),
        ("x.x.x.", 9, 2, "abcdef"),
    ],
)
def test_places_are_kept_for_titles_without_a_history(fresh: str, size: int, kept: int, chosen: str) -> None:
    names = "fedcba"  # the best last: choosing sorts
    score_C = np.array(["fedcba".index(name) for name in names], np.float32)
    fresh_C = np.array([fresh["abcdef".index(name)] == "x" for name in names])
    assert "".join(names[i] for i in choose(score_C, fresh_C, size, kept)) == chosen


def test_nobody_meets_only_what_has_proved_itself() -> None:
    version = recommender()
    fresh = [title_metadata(world().titles[n])._replace(title=f"new-{n}", year=None) for n in range(6)]
    version.add(fresh)
    for ranked in version.recommend(viewers(), now(), 12, 2):
        for titles in ranked.titles.values():
            assert len(titles) == len(set(titles)) == 12
            assert sum(title in version.fresh for title in titles) >= 2
