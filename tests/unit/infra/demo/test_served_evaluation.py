"""Served evaluation: the rank of a title in the list that was stored before its event."""

import math

import pytest

from infra.data.simulate import simulate
from infra.demo.served_evaluation import ServedEvaluation, rank_in_list
from streaming.records import Event


def test_rank_is_the_position_in_the_list() -> None:
    assert [rank_in_list(["a", "b", "c"], title) for title in "abcd"] == [1, 2, 3, math.inf]


def test_served_list_is_scored_before_the_event_counts() -> None:
    data = simulate(users=20, titles=80, events=600, days=60, seed=2)
    lists = {user: [launch.title for launch in data.launches[:20]] for user in data.users}
    events, backlog = [data.event(k) for k in range(len(data))], 400
    reads: list[str] = []

    def read(user: str) -> list[str]:
        reads.append(user)
        return lists[user]

    served = ServedEvaluation(read)
    for event in events[:backlog]:
        served.count(event)
    assert reads == []
    for event in events[backlog:]:
        served.score_and_count(event)
    assert reads == [event.user for event in events[backlog:]]  # no simulated user repeats a title
    reciprocal = [1 / rank_in_list(lists[event.user], event.title) for event in events[backlog:]]
    assert served.ranking.report()["mrr"]["all"] == pytest.approx(sum(reciprocal) / 200)
    new = [k for k in range(backlog, 600) if sum(e.title == events[k].title for e in events[:k]) < 10]
    assert served.ranking.scored()["new_titles"] == len(new)


def test_seen_titles_and_weightless_actions_are_not_scored() -> None:
    first, repeat = Event(user="u", title="a", ts=1), Event(user="u", title="a", ts=2)
    impression = Event(user="u", title="b", ts=3, action="impression")
    after = Event(user="u", title="b", ts=4)
    for repeats, scored in ((False, [1, None, None, 2]), (True, [1, 1, None, 2])):
        served, found = ServedEvaluation(lambda _: ["a", "b"], repeats=repeats), []
        for event in (first, repeat, impression, after):
            found.append(served.score(event))
            served.count(event)
        assert found == scored
        assert served.ranking.scored()["unseen_titles"] == 2  # an impression does not make a title known


def test_beyond_accuracy_uses_counts_before_the_event() -> None:
    """Twenty users watch `a` in turn and get lists with `a` and `b`. `a` is a new title before its tenth event, `b`
    always is."""
    lists = {"at first": ["a"], "later": ["a", "b"]}
    served = ServedEvaluation(lambda user: lists["at first" if int(user) < 15 else "later"])
    for n in range(20):
        served.score_and_count(Event(user=str(n), title="a", ts=n))
    new_title_share = (10 + 5) / 20  # until `a` has ten events, and again with `b`
    found = served.beyond_accuracy.report(candidates=8)
    assert found == {"coverage": 2 / 8, "popularity_bias": sum(range(20)) / 25, "new_title_share": new_title_share}
