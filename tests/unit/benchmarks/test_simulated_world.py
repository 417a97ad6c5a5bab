"""The simulated titles and users: reproducible, consistent, and batched as the learner takes them."""

from itertools import pairwise

import numpy as np

from benchmarks.simulated_world import (
    MAX_HISTORY,
    MAX_USER_EVENTS,
    MIN_USER_EVENTS,
    PLAY,
    SimulatedWorld,
    user_updates,
)


def small_world(seed: int = 0) -> SimulatedWorld:
    return SimulatedWorld(titles=400, users=30, seed=seed)


def test_seed_determines_everything() -> None:
    one, same, other = small_world(), small_world(), small_world(1)
    assert np.array_equal(one.text_VE, same.text_VE)
    assert np.array_equal(one.user_order, same.user_order)
    assert not np.array_equal(one.text_VE, other.text_VE)


def test_histories_are_distinct_titles_at_increasing_times() -> None:
    world = small_world()
    for rows, times in zip(world.histories, world.times, strict=True):
        assert MIN_USER_EVENTS <= len(rows) == len(times) <= MAX_USER_EVENTS
        assert len(set(rows.tolist())) == len(rows)
        assert all(a < b for a, b in pairwise(times))
    every_time = sorted(ts for times in world.times for ts in times)
    assert len(set(every_time)) == len(every_time)
    assert every_time[-1] < world.now


def test_user_context_has_recent_history_and_all_seen_titles() -> None:
    world = small_world()
    user = max(range(30), key=lambda u: len(world.histories[u]))
    context = world.user_context(user)
    assert len(context.titles) == len(context.times) == len(context.actions) == MAX_HISTORY
    assert context.seen is not None
    assert len(context.seen) == context.events == len(world.histories[user]) > MAX_HISTORY
    assert list(context.titles) == list(context.seen)[-MAX_HISTORY:]


def test_texts_of_one_topic_are_similar() -> None:
    world = small_world()
    similarity_VV = world.text_VE @ world.text_VE.T
    same_VV = world.topic_V[:, None] == world.topic_V
    np.fill_diagonal(same_VV, False)
    other_VV = world.topic_V[:, None] != world.topic_V
    assert similarity_VV[same_VV].mean() > similarity_VV[other_VV].mean() + 0.1


def test_micro_batch_keeps_stream_order_and_marks_new_events() -> None:
    world = small_world()
    first, second = user_updates(world, [(4, 2), (1, 0), (4, 3)])
    assert (first.user, list(first.titles), list(first.new), list(first.order)) == (
        "u1", [f"t{world.histories[1][0]}"], [0], [1],
    )  # fmt: skip
    assert (second.user, len(second.titles), list(second.new), list(second.order)) == ("u4", 4, [2, 3], [0, 2])
    assert list(second.times) == world.times[4][:4]
    assert set(second.actions) == {PLAY}
