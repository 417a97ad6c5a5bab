"""Probes: past ranking requests that are ranked again to compare two states of the model. Nothing is learned from them.

A probe keeps string ids, because a catalog row may belong to another title later. The state of the model already
includes the probe's event, and so does every state it is compared with, so the ranks are comparable with each other
but not with prequential ones.

N probes · L events of a history · M listed titles
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from model.learner import Learner
from model.pipeline import PreparedRequest, RankingRequest
from model.signals import candidates
from model.signals.inputs import user_query
from model.signals.snapshot import take_snapshot
from model.state.stream_state import History, UserUpdate

LIST_TITLES: Final = 20  # best titles of a probe's list


class Probe(NamedTuple):
    """A user's history, whose last event is the one to predict."""

    user: str
    titles: list[str]  # in order of event time, as are times and actions
    times: list[int]  # ms
    actions: list[int]  # codes


class ProbeResult(NamedTuple):
    """How a state of the model ranks one probe."""

    rank: float  # of the last event's title; infinity if it is not a candidate or its score is not finite
    top: list[str]  # the best titles, best first


def new_probe(update: UserUpdate, index: int, max_events: int) -> Probe:
    """The probe of the event at `index` of a history, with at most `max_events` events."""
    part = slice(max(index + 1 - max_events, 0), index + 1)
    return Probe(update.user, list(update.titles[part]), list(update.times[part]), list(update.actions[part]))


def rank_probes(learner: Learner, probes: Sequence[Probe]) -> list[ProbeResult]:
    """Rank all candidates for each probe with the present state. Does not change what is learned later."""
    stream_state, pipeline = learner.stream_state, learner.served_pipeline
    histories = [_history(learner, probe) for probe in probes]
    requests = [_request(history, n) for n, history in enumerate(histories)]
    snapshot = take_snapshot(stream_state)
    text = candidates.text_scores(snapshot, [request.history for request in requests])
    pipeline.prepare(snapshot, histories, requests)
    results = []
    for n, request in enumerate(requests):
        if request.target < 0:  # the title was evicted
            results.append(ProbeResult(float("inf"), []))
            continue
        query = user_query(stream_state, request.history, request.now, 0)
        user = candidates.user_signals(snapshot, query)
        seen = stream_state.user_store.seen_by(request.history.user)
        blocked = np.zeros(0, np.int32) if learner.settings.repeats else seen[seen != request.target]
        prepared = PreparedRequest(request, n, user, text[n], blocked)
        ranked = pipeline.rank(snapshot, prepared, LIST_TITLES, add_example=False)
        results.append(ProbeResult(ranked.rank, [stream_state.catalog.ids[row] for row in ranked.top_M.tolist()]))
    return results


def _history(learner: Learner, probe: Probe) -> History:
    rows_L = learner.stream_state.catalog.rows_of(probe.titles)
    return History(probe.user, rows_L, np.array(probe.times, np.int64), np.array(probe.actions, np.int64))


def _request(history: History, n: int) -> RankingRequest:
    last = len(history.rows_L) - 1
    target, now, action = int(history.rows_L[last]), int(history.times_L[last]), int(history.actions_L[last])
    return RankingRequest(history.before(last), now, target, action, n, last)
