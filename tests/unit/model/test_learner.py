"""The learner: what it does follows from its state and the batch alone, so a restart changes no bit of what follows."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model import checkpoint
from model.actions import ACTIONS
from model.learner import Learned, Learner, LearnerSettings, UserUpdate
from model.pipeline import RankingRequest
from model.recommender import Recommender, Viewer
from model.signals import candidates
from model.signals.gather import gather
from model.state.stream_state import History, TitleMetadata
from tests.support.learner import D_TEXT, MEMORY, PLAY, ROOMY, SETTINGS, Stream, differences, directions, launched

torch.set_num_threads(1)
Batch = list[TitleMetadata | UserUpdate]


def play(learner: Learner, batches: list[Batch]) -> list[Learned]:
    return [learner.observe(batch) for batch in batches]


def repeated(user: str, titles: list[str], new: int, start: int = 1_000) -> UserUpdate:
    """A user's history whose last `new` events are new; ordered by time."""
    times = [start + 60_000 * i for i in range(len(titles))]
    places = range(len(titles) - new, len(titles))
    return UserUpdate(user, titles, times, [PLAY] * len(titles), places, [times[i] for i in places])


def test_a_restart_from_disk_changes_no_rank_no_loss_and_no_bit_of_the_state(tmp_path: Path) -> None:
    batches = Stream(seed=1).batches(32)
    straight, before = Learner(SETTINGS), Learner(SETTINGS)
    whole = play(straight, batches)
    first = play(before, batches[:23])
    checkpoint.save(str(tmp_path), before.state_dict(), {})
    play(before, batches[23:30])  # what is learned after a checkpoint is not in it
    after = Learner(SETTINGS)
    after.load_state_dict(checkpoint.load(str(tmp_path))[0])
    assert repr(first + play(after, batches[23:])) == repr(whole)
    assert differences(straight.state_dict(), after.state_dict()) == []
    assert sum(len(learned.ranked) for learned in whole) > 200
    assert any(math.isfinite(event.ranks["full"]) for learned in whole[25:] for event in learned.ranked)
    assert len(straight.stream_state.catalog.free) + len(straight.stream_state.catalog) > MEMORY.most_titles
    assert (
        len(straight.stream_state.user_store.user_indices) == MEMORY.most_users < 16
    )  # users were given up on the way


def test_a_state_that_was_taken_stays_as_it_was_while_the_learner_goes_on(tmp_path: Path) -> None:
    learner, stream = Learner(SETTINGS), Stream(seed=2)
    play(learner, stream.batches(12))
    state = learner.state_dict()
    checkpoint.save(str(tmp_path), state, {})
    play(learner, stream.batches(6))
    kept, _ = checkpoint.load(str(tmp_path))
    assert differences(kept, state) == []


def test_the_same_batches_give_the_same_state() -> None:
    learners = [Learner(SETTINGS), Learner(SETTINGS)]
    for learner in learners:
        play(learner, Stream(seed=3).batches(8))
    assert differences(learners[0].state_dict(), learners[1].state_dict()) == []


def test_ranks_of_a_batch_do_not_know_what_comes_after_it() -> None:
    one, other = Stream(seed=4), Stream(seed=4)
    batches = one.batches(10)
    longer = [*other.batches(10)[:9], [*batches[9], repeated("u99", ["t1", "t2"], 2, start=one.now + 1)]]
    a, b = play(Learner(SETTINGS), batches)[-1], play(Learner(SETTINGS), longer)[-1]
    assert [event.ranks for event in a.ranked] == [event.ranks for event in b.ranked[: len(a.ranked)]]


def catalog(titles: int) -> Batch:
    text = directions(np.random.default_rng(5), titles)
    return [launched(f"t{n}", text[n]) for n in range(titles)]


def test_events_are_ranked_in_their_order_across_users_and_counts_are_those_before() -> None:
    learner = Learner(replace(SETTINGS, memory=ROOMY))
    learner.observe(catalog(5))
    a = repeated("a", ["t0", "t1", "t0"], 3)
    b = UserUpdate("b", ["t1", "t2"], [61_500, 61_600], [PLAY] * 2, [0, 1], [61_500, 61_600])
    ranked = learner.observe([b, a]).ranked
    got = [(event.user, event.title, event.title_events, event.user_events) for event in ranked]
    assert got == [("a", "t0", 0, 0), ("a", "t1", 0, 1), ("b", "t1", 1, 0), ("b", "t2", 0, 1), ("a", "t0", 1, 2)]
    assert ranked[-1].ranks["full"] == math.inf  # seen already, and the seen are left out


def test_with_repeats_a_seen_title_is_ranked_like_any_other() -> None:
    learner = Learner(replace(SETTINGS, memory=ROOMY, repeats=True))
    learner.observe(catalog(5))
    ranked = learner.observe([repeated("a", ["t0", "t0", "t0"], 3)]).ranked
    assert all(1 <= event.ranks["full"] <= 5 for event in ranked)


def test_what_is_context_only_is_neither_ranked_nor_seen() -> None:
    learner = Learner(replace(SETTINGS, memory=ROOMY))
    learner.observe(catalog(3))
    seen = ACTIONS["impression"].code
    user_update = UserUpdate("a", ["t0", "t1"], [1_000, 2_000], [seen, PLAY], [0, 1], [1_000, 2_000])
    assert [event.title for event in learner.observe([user_update]).ranked] == ["t1"]
    stream_state = learner.stream_state
    assert stream_state.user_store.seen_by("a").tolist() == [stream_state.catalog.rows["t1"]]
    assert learner.observe([UserUpdate("a", ["t0"], [1_000], [seen], [0], [1_000])]) == Learned([], {})


def test_a_title_launched_in_the_batch_is_ranked_in_it_and_an_unlaunched_or_withdrawn_one_is_not() -> None:
    learner = Learner(replace(SETTINGS, memory=ROOMY))
    learner.observe(catalog(4))
    ranked = learner.observe(
        [repeated("a", ["early", "new", "t1"], 3), launched("new"), launched("t1", withdrawn=True)]
    )
    ranks = {event.title: event.ranks["full"] for event in ranked.ranked}
    assert ranks["early"] == ranks["t1"] == math.inf
    assert 1 <= ranks["new"] <= 4
    assert (
        learner.stream_state.catalog.count_V[learner.stream_state.catalog.rows["early"]] == 1
    )  # it counted all the same


def test_titles_beyond_the_bound_are_given_up_before_any_event_has_come() -> None:
    learner = Learner(SETTINGS)
    learner.observe(catalog(2 * MEMORY.most_titles))
    ranked = learner.observe([repeated("a", [f"t{2 * MEMORY.most_titles - 1}"], 1)]).ranked
    assert len(learner.stream_state.catalog.rows) <= MEMORY.most_titles
    assert 1 <= ranked[0].ranks["full"] <= MEMORY.most_titles


def test_a_batch_may_bring_more_users_than_there_was_room_for() -> None:
    """The trail names the newest users at once: arrays that were read without room for them would end too soon."""
    ranks = []
    for room in (1024, 4096):
        learner = Learner(replace(SETTINGS, memory=ROOMY))
        learner.observe(catalog(4))
        user_store = learner.stream_state.user_store
        user_store.make_room(dict.fromkeys(map(str, range(room)), 0))
        assert len(user_store.interactions.user_count_U) == room
        for n in range(1020):
            user_store.add(f"early {n}", 0)
        batch: Batch = [repeated(f"u{n}", ["t0", "t1", "t2"], 3, start=n) for n in range(40)]
        ranks.append([event.ranks for event in learner.observe(batch).ranked])
        assert (user_store.interactions.title_users_VA[:3] >= 1024).any(axis=1).all()
    assert ranks[0] == ranks[1]


def test_an_event_counts_as_what_was_done_and_as_the_so_manyeth_of_its_user() -> None:
    learner = Learner(replace(SETTINGS, memory=ROOMY, delayed=1.0))
    learner.observe(catalog(8))
    actions = [ACTIONS[name].code for name in ("play", "like", "rated low", "play", "play", "finish", "dislike")]
    titles, places = [f"t{n}" for n in range(7)], list(range(7))
    learner.observe([UserUpdate("u", titles, places, actions, places, places)])
    counters = learner.stream_state.counters
    assert counters.liking_V[:8].tolist() == pytest.approx([1, 1.5, -0.2, 1, 1, 1.5, 0, 0])  # a dislike is no target
    assert counters.stage_VB[:8, :2].T.tolist() == [[1, 1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0]]


def test_ranking_and_serving_change_nothing() -> None:
    stream, learner = Stream(seed=7), Learner(SETTINGS)
    play(learner, stream.batches(12))
    learner.pipelines["full"].sequence.refresh(learner.stream_state.catalog)  # type: ignore[union-attr]
    before = learner.state_dict()
    recommender = Recommender(learner.stream_state, learner.pipelines["full"])
    viewers = []
    for user in ("u1", "u2", "nobody"):
        history = stream.histories.get(user, [])
        columns = [list(column) for column in zip(*history, strict=True)] or [[], [], []]
        viewers.append(Viewer(user, columns[0], columns[1], columns[2], columns[0], len(history)))
    ranked = recommender.recommend(viewers, stream.now, size=5)
    recommender.score([["t1", "t2"]] * 3, viewers, ranked)
    assert all(len(one.titles[0]) == 5 for one in ranked)
    assert differences(learner.state_dict(), before) == []


def test_a_contender_that_does_not_learn_ranks_without_a_trace() -> None:
    stream, learner = Stream(seed=8), Learner(SETTINGS)
    play(learner, stream.batches(12))
    pipeline, stream_state = learner.pipelines["full"], learner.stream_state
    pipeline.learns = False
    update = repeated("u1", ["t1", "t2", "t3", "t4"], 1)
    history = History("u1", stream_state.catalog.find(update.titles), np.array(update.times), np.array(update.actions))
    target = int(np.flatnonzero(stream_state.titles().candidate_V)[0])
    requests = [
        RankingRequest(history.before(3), update.times[3], target, PLAY, 0, 3, 0),
        RankingRequest(history.before(1), update.times[0], target, PLAY, 0, 3, 2),
    ]
    snapshot = candidates.view(stream_state)
    text_NV = candidates.text_scores(snapshot, [request.history for request in requests])
    pipeline.prepare(snapshot, [history], requests)  # the first time may make room for new titles
    before = learner.state_dict()
    ranks = []
    for _ in range(2):
        pipeline.prepare(snapshot, [history], requests)
        for n, request in enumerate(requests):
            query = stream_state.query(request.history, request.now, request.delay)
            gather(query, snapshot.titles, stream_state.counters, snapshot.scratch)
            ranks.append(pipeline.rank(snapshot, request, n, query, text_NV[n], np.zeros(0, np.int32)).rank)
    assert ranks[0] == ranks[2] >= 1
    assert pipeline.learn(snapshot, [history], [[3]], 1.0) == {}
    assert differences(learner.state_dict(), before) == []


def test_it_learns_who_likes_what() -> None:
    """Even users watch even titles, odd ones odd: after some rounds the other half is out of the way."""
    settings = LearnerSettings(replace(ROOMY, d_text=D_TEXT), SETTINGS.sequence, SETTINGS.ranker, shortlist=40)
    learner, random = Learner(replace(settings, repeats=True)), np.random.default_rng(6)
    learner.observe(catalog(20))
    histories: dict[int, list[str]] = {user: [] for user in range(12)}
    ranks: list[float] = []
    for step in range(40):
        batch: Batch = []
        for user in range(12):
            histories[user].append(f"t{2 * random.integers(10) + user % 2}")
            batch.append(repeated(f"u{user}", histories[user][-8:], 1, start=10_000_000 * step))
        ranked = learner.observe(batch).ranked
        ranks += [event.ranks["full"] for event in ranked if step >= 25]
    assert np.mean(ranks) < 7  # 5.5 at best, 10.5 by chance
