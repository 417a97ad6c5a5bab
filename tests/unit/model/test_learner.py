"""The learner: order of ranking and counting, determinism, restored states, evictions."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model import checkpoint
from model.actions import ACTIONS
from model.learner import BatchResult, Learner
from model.recommender import Recommender, UserContext
from model.settings import LearnerSettings, StreamStateSettings
from model.state.stream_state import TitleMetadata, UserUpdate
from tests.support.learner import (
    D_TEXT,
    LARGE_STATE,
    PLAY,
    SETTINGS,
    SMALL_STATE,
    RandomStream,
    random_unit_vectors,
    state_differences,
    title_metadata,
    update,
)

torch.set_num_threads(1)
Batch = list[TitleMetadata | UserUpdate]


def observe_all(learner: Learner, batches: list[Batch]) -> list[BatchResult]:
    return [learner.observe(batch) for batch in batches]


def test_restored_learner_continues_bit_for_bit(tmp_path: Path) -> None:
    batches = RandomStream(seed=1).batches(32)
    uninterrupted, crashed = Learner(SETTINGS), Learner(SETTINGS)
    results = observe_all(uninterrupted, batches)
    first = observe_all(crashed, batches[:23])
    checkpoint.save(str(tmp_path), crashed.state_dict(), {})
    observe_all(crashed, batches[23:30])  # lost with the crash
    restored = Learner(SETTINGS)
    restored.load_state_dict(checkpoint.load(str(tmp_path))[0])
    assert repr(first + observe_all(restored, batches[23:])) == repr(results)
    assert state_differences(uninterrupted.state_dict(), restored.state_dict()) == []
    assert sum(len(result.ranked) for result in results) > 200
    assert any(math.isfinite(event.ranks["full"]) for result in results[25:] for event in result.ranked)
    state = uninterrupted.stream_state
    assert len(state.catalog.free) + len(state.catalog) > SMALL_STATE.max_titles  # titles were evicted
    assert len(state.user_store.user_indices) == SMALL_STATE.max_users < 16  # users were evicted
    assert state.waiting_title_events > 5  # some titles had events before their launch


def test_state_dict_is_a_copy(tmp_path: Path) -> None:
    learner, stream = Learner(SETTINGS), RandomStream(seed=2)
    observe_all(learner, stream.batches(12))
    state = learner.state_dict()
    checkpoint.save(str(tmp_path), state, {})
    observe_all(learner, stream.batches(6))
    kept, _ = checkpoint.load(str(tmp_path))
    assert state_differences(kept, state) == []


def test_equal_batches_give_equal_states() -> None:
    learners = [Learner(SETTINGS), Learner(SETTINGS)]
    for learner in learners:
        observe_all(learner, RandomStream(seed=3).batches(8))
    assert state_differences(learners[0].state_dict(), learners[1].state_dict()) == []


def test_ranks_do_not_depend_on_later_events() -> None:
    one, other = RandomStream(seed=4), RandomStream(seed=4)
    batches = one.batches(10)
    longer = [*other.batches(10)[:9], [*batches[9], update("u99", ["t1", "t2"], 2, start=one.now + 1)]]
    a, b = observe_all(Learner(SETTINGS), batches)[-1], observe_all(Learner(SETTINGS), longer)[-1]
    assert [event.ranks for event in a.ranked] == [event.ranks for event in b.ranked[: len(a.ranked)]]


def catalog(titles: int) -> Batch:
    text = random_unit_vectors(np.random.default_rng(5), titles)
    return [title_metadata(f"t{n}", text[n]) for n in range(titles)]


def test_events_are_ranked_in_order_with_counts_from_before() -> None:
    learner = Learner(replace(SETTINGS, stream_state=LARGE_STATE))
    learner.observe(catalog(5))
    a = update("a", ["t0", "t1", "t0"], 3)
    b = UserUpdate("b", ["t1", "t2"], [61_500, 61_600], [PLAY] * 2, [0, 1], [61_500, 61_600])
    ranked = learner.observe([b, a]).ranked
    got = [(event.user, event.title, event.title_events, event.user_events) for event in ranked]
    assert got == [("a", "t0", 0, 0), ("a", "t1", 0, 1), ("b", "t1", 1, 0), ("b", "t2", 0, 1), ("a", "t0", 1, 2)]
    assert ranked[-1].ranks["full"] == math.inf  # a seen title is not a candidate


def test_repeats_keeps_seen_titles_as_candidates() -> None:
    learner = Learner(replace(SETTINGS, stream_state=LARGE_STATE, repeats=True))
    learner.observe(catalog(5))
    ranked = learner.observe([update("a", ["t0", "t0", "t0"], 3)]).ranked
    assert all(1 <= event.ranks["full"] <= 5 for event in ranked)


def test_context_event_is_neither_ranked_nor_marked_seen() -> None:
    learner = Learner(replace(SETTINGS, stream_state=LARGE_STATE))
    learner.observe(catalog(3))
    impression = ACTIONS["impression"].code
    user_update = UserUpdate("a", ["t0", "t1"], [1_000, 2_000], [impression, PLAY], [0, 1], [1_000, 2_000])
    assert [event.title for event in learner.observe([user_update]).ranked] == ["t1"]
    stream_state = learner.stream_state
    assert stream_state.user_store.seen_by("a").tolist() == [stream_state.catalog.rows["t1"]]
    assert learner.observe([UserUpdate("a", ["t0"], [1_000], [impression], [0], [1_000])]) == BatchResult([], {})


def test_launch_in_the_same_batch_makes_title_a_candidate() -> None:
    learner = Learner(replace(SETTINGS, stream_state=LARGE_STATE))
    learner.observe(catalog(4))
    ranked = learner.observe(
        [update("a", ["early", "new", "t1"], 3), title_metadata("new"), title_metadata("t1", withdrawn=True)]
    )
    ranks = {event.title: event.ranks["full"] for event in ranked.ranked}
    assert ranks["t1"] == math.inf
    assert 1 <= ranks["new"] <= 4
    assert ranks["early"] == math.inf  # it waits for its launch


def test_event_on_a_waiting_title_is_a_miss_and_an_unknown_title_of_the_history() -> None:
    states = []
    for title in ("waiting", "other waiting"):
        learner = Learner(replace(SETTINGS, stream_state=LARGE_STATE))
        learner.observe(catalog(4))
        missed = learner.observe([update("a", [title], 1)])
        assert [event.ranks for event in missed.ranked] == [{"full": math.inf}]
        assert missed.losses == {}
        ranked = learner.observe([update("a", [title, "t1"], 2)]).ranked
        assert [event.title for event in ranked] == [title, "t1"]
        assert (ranked[0].ranks["full"], ranked[0].title_events) == (math.inf, 0)
        assert learner.stream_state.waiting_title_events == 2
        assert learner.stream_state.catalog.ids == ["t0", "t1", "t2", "t3"]
        states.append(learner.state_dict())
        del states[-1]["stream_state"]["admission"]
    assert state_differences(states[0], states[1]) == []


def test_unlaunched_title_is_learned_once_three_users_have_an_event_on_it() -> None:
    learner = Learner(replace(SETTINGS, stream_state=LARGE_STATE))
    learner.observe(catalog(4))
    ranked = learner.observe([update(user, ["t0", "early"], 2, start=n) for n, user in enumerate("abaccd")]).ranked
    assert [(event.user, event.title_events) for event in ranked if event.title == "early"] == [
        ("a", 0),
        ("b", 0),
        ("a", 0),
        ("c", 0),
        ("c", 1),
        ("d", 2),
    ]
    assert all(event.ranks["full"] == math.inf for event in ranked if event.title == "early")
    stream_state = learner.stream_state
    assert stream_state.user_store.interactions.title_count_V[stream_state.catalog.rows["early"]] == 3
    assert stream_state.waiting_title_events == 3


@pytest.mark.parametrize("users_per_title", [1, 3])
def test_invented_titles_evict_no_launched_title(users_per_title: int) -> None:
    learner = Learner(replace(SETTINGS, stream_state=StreamStateSettings(d_text=D_TEXT, max_titles=2_000, history=10)))
    learner.observe(catalog(1_500))
    invented = [f"invented {n}" for n in range(2_100)]
    for first in range(0, len(invented), 70):  # fewer than wait at most
        titles = invented[first : first + 70]
        learner.observe([update(f"attacker {n}", titles, len(titles)) for n in range(users_per_title)], 0.0, 0.0)
    learner.observe([title_metadata("launched later")])
    stream_state = learner.stream_state
    assert stream_state.catalog.candidate_V.sum() == 1_501
    assert (stream_state.catalog.rows_of([f"t{n}" for n in range(1_500)]) == np.arange(1_500)).all()
    if users_per_title == 1:
        assert (len(stream_state.admission), len(stream_state.catalog.rows)) == (100, 1_501)
    else:  # above all, the invented titles evict each other
        assert stream_state.evicted_titles > 1_500
        assert 1_900 < len(stream_state.catalog.rows) <= 2_001


def test_max_titles_evicts_titles_without_events() -> None:
    learner = Learner(SETTINGS)
    learner.observe(catalog(2 * SMALL_STATE.max_titles))
    ranked = learner.observe([update("a", [f"t{2 * SMALL_STATE.max_titles - 1}"], 1)]).ranked
    assert len(learner.stream_state.catalog.rows) <= SMALL_STATE.max_titles
    assert 1 <= ranked[0].ranks["full"] <= SMALL_STATE.max_titles


def test_batch_with_more_users_than_capacity_ranks_the_same() -> None:
    """The interaction index grows while a batch is ranked, so arrays must be reserved before they are read."""
    ranks = []
    for capacity in (1024, 4096):
        learner = Learner(replace(SETTINGS, stream_state=LARGE_STATE))
        learner.observe(catalog(4))
        user_store = learner.stream_state.user_store
        user_store.reserve(dict.fromkeys(map(str, range(capacity)), 0))
        assert len(user_store.interactions.user_count_U) == capacity
        for n in range(1020):
            user_store.add(f"early {n}", 0)
        batch: Batch = [update(f"u{n}", ["t0", "t1", "t2"], 3, start=n) for n in range(40)]
        ranks.append([event.ranks for event in learner.observe(batch).ranked])
        assert (user_store.interactions.title_users_VI[:3] >= 1024).any(axis=1).all()
    assert ranks[0] == ranks[1]


def test_event_is_counted_by_action_and_user_activity() -> None:
    learner = Learner(replace(SETTINGS, stream_state=LARGE_STATE, delayed_query_share=1.0))
    learner.observe(catalog(8))
    actions = [ACTIONS[name].code for name in ("play", "like", "rated low", "play", "play", "finish", "dislike")]
    titles, times = [f"t{n}" for n in range(7)], list(range(7))
    learner.observe([UserUpdate("u", titles, times, actions, range(7), times)])
    counters = learner.stream_state.counters
    assert counters.liking_sum_V[:8].tolist() == pytest.approx(
        [1, 1.5, -0.2, 1, 1, 1.5, 0, 0]
    )  # a dislike is context only
    assert counters.bucket_count_VB[:8, :2].T.tolist() == [[1, 1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0]]


def test_recommend_and_score_leave_state_unchanged() -> None:
    stream, learner = RandomStream(seed=7), Learner(SETTINGS)
    observe_all(learner, stream.batches(12))
    before = learner.state_dict()
    recommender = Recommender(learner.stream_state, learner.served_pipeline)
    users = []
    for user in ("u1", "u2", "unknown user"):
        history = stream.histories.get(user, [])
        columns = [list(column) for column in zip(*history, strict=True)] or [[], [], []]
        users.append(UserContext(user, columns[0], columns[1], columns[2], columns[0], len(history)))
    ranked = recommender.recommend(users, stream.now, size=5)
    recommender.score([["t1", "t2"]] * 3, users, ranked)
    assert all(len(one.titles[0]) == 5 for one in ranked)
    assert state_differences(learner.state_dict(), before) == []


def test_top_titles_agree_with_ranks_and_change_nothing() -> None:
    found, states = [], []
    for top_k in (0, 4):
        stream, learner = RandomStream(seed=9), Learner(SETTINGS, top_k=top_k)
        found.append([event for batch in stream.batches(15) for event in learner.observe(batch).ranked])
        states.append(learner.state_dict())
    without, with_top = found
    assert state_differences(states[0], states[1]) == []
    assert [event.ranks for event in without] == [event.ranks for event in with_top]
    assert all(event.top_titles == {} for event in without)
    agreeing = 0
    for event in (event for event in with_top if event.top_titles):  # none for an event on a waiting title
        top, rank = event.top_titles["full"], event.ranks["full"]
        assert len(top) == len(set(top)) <= 4
        assert (event.title in top) == (rank <= 4)
        if rank <= 4 and rank.is_integer():
            agreeing += top.index(event.title) == rank - 1
    assert agreeing > 5


@pytest.mark.learned
def test_learns_which_user_likes_which_titles() -> None:
    """Users watch the titles of their own parity, so a trained learner ranks the other half lower."""
    settings = LearnerSettings(replace(LARGE_STATE, d_text=D_TEXT), SETTINGS.sequence, SETTINGS.ranker, shortlist=40)
    learner, random = Learner(replace(settings, repeats=True)), np.random.default_rng(6)
    learner.observe(catalog(20))
    histories: dict[int, list[str]] = {user: [] for user in range(12)}
    ranks: list[float] = []
    for step in range(40):
        batch: Batch = []
        for user in range(12):
            histories[user].append(f"t{2 * random.integers(10) + user % 2}")
            batch.append(update(f"u{user}", histories[user][-8:], 1, start=10_000_000 * step))
        ranked = learner.observe(batch).ranked
        ranks += [event.ranks["full"] for event in ranked if step >= 25]
    assert np.mean(ranks) < 7  # 5.5 at best, 10.5 by chance
