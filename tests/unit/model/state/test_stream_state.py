"""The memory: its parts grow, evict and restart together, and a question holds what the asker's past says."""

import numpy as np
from numpy.typing import NDArray

from model.actions import ACTIONS, LIKING
from model.signals.table import STATIC
from model.state.stream_state import Memory, MemorySettings, Past
from tests.support.learner import D_TEXT, MEMORY, PLAY, ROOMY, differences, directions, launched

HOUR = 3_600_000


def past(memory: Memory, user: str, titles: list[str], actions: list[int] | None = None) -> Past:
    rows_L = memory.catalogue.find(titles)
    times_L = np.arange(len(titles), dtype=np.int64) * HOUR
    return Past(user, rows_L, times_L, np.array(actions or [PLAY] * len(titles), np.int64))


def memory_of(titles: int, settings: MemorySettings = ROOMY) -> Memory:
    memory = Memory(settings)
    memory.launch(launched(f"t{n}", text) for n, text in enumerate(directions(np.random.default_rng(1), titles)))
    return memory


def test_a_question_holds_the_known_titles_newest_first() -> None:
    memory = memory_of(5)
    high, low = ACTIONS["rated high"].code, ACTIONS["rated low"].code
    asked = memory.asked(past(memory, "u", ["t1", "gone", "t3", "t1"], [high, PLAY, low, PLAY]), now=9 * HOUR)
    assert asked.recent_L.tolist() == [1, 3, 1]
    assert asked.times_L.tolist() == [3 * HOUR, 2 * HOUR, 0]
    assert asked.liking_L.tolist() == [np.float32(LIKING[code]) for code in (PLAY, low, high)]
    assert (asked.now, asked.slot, asked.events, asked.delay) == (9 * HOUR, -1, 0, 0)


def test_a_question_reads_no_more_of_the_past_than_is_set() -> None:
    memory = memory_of(30)
    asked = memory.asked(past(memory, "u", [f"t{n}" for n in range(30)]), now=0)
    assert asked.recent_L.tolist() == list(range(29, 29 - ROOMY.history, -1))


def test_a_delayed_question_does_not_know_the_last_events_of_the_asker() -> None:
    memory = memory_of(5)
    for n in range(4):
        memory.count(past(memory, "u", [f"t{k}" for k in range(n)]), n, n)
    before = past(memory, "u", ["t0"])
    assert [memory.asked(before, 0, delay).events for delay in (0, 3, 9)] == [4, 1, 0]
    assert memory.asked(before, 0).slot == memory.audience.slot("u") >= 0


def test_an_event_reaches_every_part() -> None:
    memory = memory_of(4)
    memory.count(past(memory, "u", []), 2, 10 * HOUR)
    memory.count(past(memory, "u", ["t2"]), 3, 11 * HOUR)
    assert memory.events == 2
    assert memory.catalogue.count_V[:4].tolist() == [0, 0, 1, 1]
    assert memory.audience.seen_by("u").tolist() == [2, 3]
    assert memory.counters.follow.to_VK[2, 0] == 3
    assert memory.counters.now_C[[0, -1]].tolist() == [11 * HOUR, 2]


def test_what_signals_read_of_the_titles_is_what_was_counted() -> None:
    memory = memory_of(5)
    memory.launch([launched("t4", withdrawn=True), launched("no text", None, ["drama"], 1999, 7)])
    memory.row("early")
    for n in range(3):
        memory.count(past(memory, f"u{n}", []), 1, n)
    memory.count(past(memory, "u9", []), 2, 3)
    titles = memory.titles()
    assert titles.candidate_V.tolist() == [True] * 4 + [False, True, False]
    assert titles.has_text_V.tolist() == [True] * 5 + [False, False]
    static = dict(zip(STATIC, titles.static_VS.T, strict=True))
    np.testing.assert_allclose(titles.rare_V, 1 / np.sqrt([1, 4, 2, 1, 1, 1, 1]))
    np.testing.assert_allclose(static["popular ever"], np.log1p([0, 3, 1, 0, 0, 0, 0]))
    assert static["no event yet"].tolist() == [1, 0, 0, 1, 1, 1, 1]
    assert static["one event"].tolist() == [0, 0, 1, 0, 0, 0, 0]
    assert (titles.share_VK.sum(1) < 1).all()
    assert (titles.year_V[5], titles.released_V[5]) == (1999, 7)


def test_the_parts_grow_together_and_keep_what_they_hold() -> None:
    memory = memory_of(3)
    memory.count(past(memory, "u", ["t0"]), 1, 5)
    memory.launch(launched(f"more {n}") for n in range(2_100))
    sizes = {memory.catalogue.capacity, len(memory.counters.popular_VC), len(memory.audience.trail.taken_V)}
    assert sizes == {4096}
    memory.count(past(memory, "u", ["t0", "t1"]), memory.row("more 2099"), 6)
    assert memory.counters.follow.to_VK[:2, 0].tolist() == [1, memory.row("more 2099")]
    assert len(memory.scratch().mark_V) == len(memory.titles().candidate_V) == 2103


def test_titles_beyond_the_bound_are_cleared_everywhere() -> None:
    memory = memory_of(MEMORY.most_titles + 4, MEMORY)
    for n in range(6):
        memory.count(past(memory, "u", [f"t{k}" for k in range(n)]), n, n)
    rows = memory.make_room()
    assert rows.tolist() == [0, 1, 2, 3]  # not seen since they launched: counting is no mention
    assert memory.audience.seen_by("u").tolist() == [-1, -1, -1, -1, 4, 5]
    for pairs in (memory.counters.follow, memory.counters.near, memory.counters.together):
        assert not np.isin(pairs.to_VK, rows).any()
    assert not memory.counters.popular_VC[rows].any()
    assert memory.audience.trail.taken_V[:6].tolist() == [0, 0, 0, 0, 1, 1]
    assert not (memory.audience.trail.taker_VA[rows] >= 0).any()
    assert not np.isin(memory.catalogue.similar.to_VK, rows).any()
    assert memory.make_room().tolist() == []


def play(memory: Memory, random: np.random.Generator, events: int) -> None:
    histories: dict[str, list[str]] = {}
    for n in range(events):
        user, title = f"u{random.integers(15)}", f"t{random.integers(45)}"
        row = memory.row(title)
        memory.sequence += 1
        titles = histories.setdefault(user, [])
        memory.count(past(memory, user, titles[-12:]), row, 10**12 + n * HOUR)
        titles.append(title)
        if n % 20 == 0:
            memory.launch([launched(f"t{random.integers(45)}", directions(random, 1, D_TEXT)[0])])
            memory.make_room()


def test_a_restart_changes_nothing_that_follows() -> None:
    random, one, other = np.random.default_rng(2), Memory(MEMORY), Memory(MEMORY)
    play(one, random, 250)
    state = one.state_dict()
    other.load_state_dict(state)
    assert differences(other.state_dict(), state) == []
    for memory in (one, other):
        play(memory, np.random.default_rng(3), 150)
    assert differences(other.state_dict(), one.state_dict()) == []
    assert equal(one.titles().static_VS, other.titles().static_VS)


def equal(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    return a.tobytes() == b.tobytes()
