"""The dense reference's learner: a micro-batch reads all titles anew, and each event ranks all titles.

The state that it learns into is that of the product's learner, and so are the training steps.

N requests that are ranked · V titles · C candidates of a request · M a subset of titles
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.dense.fill import DenseScores
from benchmarks.dense.inputs import text_scores
from benchmarks.dense.ranking import DenseRanking, Found
from model.learner import Learner
from model.metrics.ranking import average_rank
from model.pipeline import RankingPipeline, RankingRequest
from model.state.catalog import NOT_LAUNCHED
from model.state.counters import CLOCKS
from model.state.stream_state import History, UserUpdate

IN_SHORTLIST, OUTSIDE = 0.0, -1.0  # marks of a target in a training example of the ranker


class DenseLearner:
    """Learns micro-batches into a learner of the product."""

    def __init__(self, learner: Learner) -> None:
        self.learner, self.state = learner, learner.stream_state
        self.pipeline: RankingPipeline = learner.served_pipeline
        self.rng = np.random.default_rng(0)

    def observe(self, batch: Sequence[UserUpdate]) -> list[float]:
        """Rank before each new event and count it; then take the training steps. Returns the events' ranks."""
        learner, catalog = self.learner, self.state.catalog
        histories, new, ordered, _ = learner._requests(batch, 1.0)
        requests = [one for _, request in ordered for one in learner._with_delayed(request, histories)]
        self.state.user_store.reserve(Counter(request.history.user for request in requests))
        ranking, count_V = DenseRanking(self.state, self.pipeline), catalog.count_V[: len(catalog)].copy()
        text_NV = text_scores(ranking.text_VE, [request.history for request in requests])
        backbone_NV, ranks = self._backbone(ranking, histories, requests), []
        for request, text_V, backbone_V in zip(requests, text_NV, backbone_NV, strict=True):
            rank = self._rank(ranking, request, DenseScores(ranking.static_V, text_V, backbone_V))
            if not request.delay:
                ranks.append(rank)
                learner._count(request, {}, {})
        self._learn(ranking, histories, new, count_V)
        return ranks

    def _backbone(
        self, ranking: DenseRanking, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> NDArray[np.float32]:
        """The backbone's scores of all titles for each request: [N, V]."""
        sequence = ranking.sequence
        score_NV = np.zeros((len(requests), len(ranking.static_V)), np.float32)
        for h, delay in enumerate(sequence.settings.network.horizons):
            at = [n for n, request in enumerate(requests) if request.delay == delay]
            if not at:
                continue
            if delay == 0:
                history_N = np.array([requests[n].history_index for n in at])
                event_N = np.array([requests[n].event_index for n in at])
                hidden_ND = sequence.hidden_before_events(histories, history_N, event_N)
            else:
                hidden_ND = sequence.hidden_now([requests[n].history for n in at], [requests[n].now for n in at])
            score_NV[at] = ranking.backbone_scores(hidden_ND, h)
        return score_NV

    def _rank(self, ranking: DenseRanking, request: RankingRequest, scores: DenseScores) -> float:
        """The target's rank; also stores the ranker's training example."""
        seen = self.state.user_store.seen_by(request.history.user)
        blocked = seen[: max(len(seen) - request.delay, 0)] if request.delay else seen
        user = ranking.user_signals(request.history, request.now, delay=request.delay)
        rows_C, score_V = ranking.shortlist(user, scores, blocked, self.pipeline.shortlist)
        uniform_M = self.rng.integers(0, len(score_V), ranking.ranker.settings.uniform_negatives)
        extra_M = np.concatenate([[request.target], uniform_M])
        found = ranking.candidates(user, scores.backbone_V, rows_C, extra_M, score_V)
        index = np.flatnonzero(rows_C == request.target)
        if score_V[request.target] > -np.inf:
            self._add_example(ranking, found, len(index) > 0, request.target)
        if len(index):
            return average_rank(ranking.ranker.score(found.signals_CF[: len(rows_C)]), int(index[0]))
        return max(average_rank(score_V, request.target), len(rows_C) + 1.0)

    def _add_example(self, ranking: DenseRanking, found: Found, in_shortlist: bool, target: int) -> None:
        """Store the target, hard negatives from the shortlist and uniform negatives from the rest."""
        settings, size = ranking.ranker.settings, found.shortlist_size
        shortlist_M, uniform_M = found.rows_C[:size], found.rows_C[size + 1 :]
        others = np.flatnonzero(shortlist_M != target)
        hard = self.rng.permutation(others)[: settings.hard_negatives]
        listed = (uniform_M[:, None] == shortlist_M).any(1)
        valid = (found.score_V[uniform_M] > -np.inf) & (uniform_M != target) & ~listed
        uniform = np.flatnonzero(valid) + size + 1
        outside = int(np.count_nonzero(found.score_V > -np.inf)) - size - (not in_shortlist)
        index = np.full(1 + settings.hard_negatives + settings.uniform_negatives, size)
        log_correction = np.full(len(index), -np.inf, np.float32)
        log_correction[0] = IN_SHORTLIST if in_shortlist else OUTSIDE
        start = 1 + settings.hard_negatives
        index[1 : 1 + len(hard)], index[start : start + len(uniform)] = hard, uniform
        log_correction[1 : 1 + len(hard)] = np.log(max(len(others), 1) / max(len(hard), 1))
        log_correction[start : start + len(uniform)] = np.log(max(outside, 1) / max(len(uniform), 1))
        ranking.ranker.add_example(found.signals_CF[index], log_correction)

    def _learn(
        self,
        ranking: DenseRanking,
        histories: Sequence[History],
        new: Sequence[Sequence[int]],
        count_V: NDArray[np.float32],
    ) -> None:
        """Take the batch's training steps."""
        ranking.ranker.learn()
        launched_C = np.flatnonzero(self.state.catalog.launch_sequence_V[: len(count_V)] < NOT_LAUNCHED)
        frequency_V = np.expm1(ranking.titles.static_VF[:, CLOCKS - 1])
        ranking.sequence.learn(histories, new, self.state.catalog, count_V, launched_C, frequency_V)
        for history in histories:
            self.learner._add_to_replay(ranking.sequence, history)
