"""The ranking pipeline: candidate generation, ranker and optional sequence model over a shared stream state.

A pipeline ranks the titles before it may learn from the event. Several pipelines can share one stream state. The
evaluation uses this to compare variants, such as a frozen model or one without a backbone, on the same stream.

N requests that are ranked · L events of a history · V titles of the catalog · C candidates of a request
M a subset of titles · F ranker signals · D width of the backbone
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from model.metrics.ranking import average_rank
from model.sequence.model import SequenceModel
from model.settings import LearnerSettings
from model.signals import candidates
from model.signals.candidates import Scores
from model.signals.fill import UserSignals
from model.signals.query_scores import QueryScores, no_scores
from model.signals.ranker import Ranker
from model.signals.snapshot import CatalogSnapshot
from model.state.catalog import NOT_LAUNCHED, Catalog
from model.state.counters import CLOCKS
from model.state.new_events import NO_RECORD_TIME
from model.state.stream_state import History


@dataclass(frozen=True)
class RankingRequest:
    """A request to rank the titles for `history.user` after `history`, with the title that the user chose as target."""

    history: History  # the events before the query time
    now: int  # query time, ms
    target: int  # catalog row of the event's title
    action: int  # code of the event's action
    history_index: int  # index of the user's history in the batch
    event_index: int  # index of the event in that history
    delay: int = 0  # number of last events that are treated as unknown
    repeat: int = 1  # number of the event among the user's events on its title within a day
    recorded: int = NO_RECORD_TIME  # ms, when the log took the event: the counters read no later event time
    ranked: bool = True  # false: the event is counted without being ranked


class PreparedRequest(NamedTuple):
    """A request, and what every pipeline reads of it."""

    request: RankingRequest
    n: int  # its index among the requests that the pipelines were prepared for
    user: UserSignals
    text: QueryScores  # similarity of each title's text to the texts of the user's recent titles
    blocked: NDArray[np.int32]  # rows that are no candidates for the user


class RankResult(NamedTuple):
    """The result of ranking one request."""

    rank: float  # of the target
    top_M: NDArray[np.int64]  # rows of the best candidates, best first


class Pipeline(Protocol):
    """What a learner asks of a variant of the model. An experiment composes its own around a `RankingPipeline`."""

    @property
    def ranker(self) -> Ranker: ...

    @property
    def sequence(self) -> SequenceModel | None: ...

    @property
    def learns(self) -> bool: ...

    def refresh(self, catalog: Catalog, rows: NDArray[np.int64]) -> None: ...

    def prepare(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None: ...

    def rank(self, snapshot: CatalogSnapshot, prepared: PreparedRequest, top_k: int = 0) -> RankResult: ...

    def learn(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], new: Sequence[Sequence[int]], replay_share: float
    ) -> dict[str, float]: ...


class RequestObserver(Protocol):
    """Sees the ranking requests of each micro-batch, for evaluations that measure more than the target's rank."""

    def on_prepared(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        """Called when all pipelines are prepared for these requests, with the state from before the micro-batch."""

    def on_ranked(self, snapshot: CatalogSnapshot, prepared: PreparedRequest) -> Mapping[str, float]:
        """Called when all pipelines have ranked a request that is not delayed, before its event is counted. Returns
        further ranks of the event by name."""


class RankingPipeline:
    """One variant of the model.

    `shortlist` is the number of candidates that the ranker re-ranks. A pipeline with `learns=False` is frozen.
    """

    def __init__(
        self, ranker: Ranker, sequence: SequenceModel | None, shortlist: int = 400, seed: int = 0, learns: bool = True
    ) -> None:
        self.ranker, self.sequence, self.shortlist, self.learns = ranker, sequence, shortlist, learns
        self.rng = np.random.default_rng(seed)

    def refresh(self, catalog: Catalog, rows: NDArray[np.int64]) -> None:
        """Encode these titles anew; call it before a micro-batch is ranked."""
        if self.sequence is not None:
            self.sequence.refresh(catalog, rows)

    def prepare(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        """Compute the backbone's scores of all titles for the batch's requests, with the weights from before it."""
        self.static = candidates.static_scores(snapshot, self.ranker)
        titles = len(snapshot.titles.candidate_V)
        self.backbone = no_scores(len(requests), titles)
        if self.sequence is None:
            return
        horizons = self.sequence.settings.network.horizons
        query_NP = self.query_NP = torch.zeros(len(requests), self.sequence.e_VP.shape[1])
        current = np.array([n for n, request in enumerate(requests) if request.delay == 0], np.int64)
        if len(current):
            history_N = np.array([requests[n].history_index for n in current])
            event_N = np.array([requests[n].event_index for n in current])
            hidden_ND = self.sequence.hidden_before_events(histories, history_N, event_N)
            query_NP[current] = self.sequence.queries(hidden_ND, 0)
        for h, delay in enumerate(horizons[1:], 1):
            delayed = [n for n, request in enumerate(requests) if request.delay == delay]
            if delayed:
                known, now = [requests[n].history for n in delayed], [requests[n].now for n in delayed]
                query_NP[delayed] = self.sequence.queries(self.sequence.hidden_now(known, now), h)
        self.backbone = self.sequence.scores_of(query_NP)

    def rank(
        self, snapshot: CatalogSnapshot, prepared: PreparedRequest, top_k: int = 0, add_example: bool = True
    ) -> RankResult:
        """The target's rank and the `top_k` best candidates; `add_example` also stores the ranker's training example.

        A delayed request is only learned from: its rank is 0.
        """
        request, n, user, text, blocked = prepared
        settings, titles = self.ranker.settings, len(snapshot.titles.candidate_V)
        learns = self.learns and add_example
        uniform = self.rng.integers(0, titles, settings.uniform_negatives) if learns else np.zeros(0, np.int64)
        extra_rows = np.concatenate([[request.target], uniform])
        scores = Scores(self.static, text, self.backbone[n])
        found = candidates.generate_candidates(snapshot, self.ranker, user, scores, blocked, self.shortlist, extra_rows)
        index = np.flatnonzero(found.rows_C[: found.shortlist_size] == request.target)
        if learns and found.score_C[found.shortlist_size] > -np.inf:
            self._add_example(found, len(index) > 0, request.target, candidates.open_titles(snapshot, blocked))
        if request.delay:
            return RankResult(0.0, np.zeros(0, np.int64))
        top_M, score_C = found.rows_C[:0], np.zeros(0, np.float32)
        if len(index) or top_k:
            score_C = self.ranker.score(found.signals_CF[: found.shortlist_size])
            top_M = found.rows_C[np.argsort(-score_C, kind="stable")[:top_k]]
        if len(index):
            return RankResult(average_rank(score_C, int(index[0])), top_M)
        return RankResult(max(found.rank(request.target), found.shortlist_size + 1.0), top_M)

    def _add_example(self, found: candidates.Candidates, in_shortlist: bool, target: int, open_titles: int) -> None:
        """Store a training example: the target, hard negatives from the shortlist, uniform negatives from the rest.

        `open_titles` is the number of candidates that are not blocked. The log correction of a negative is the log of
        how many candidates it stands for. Unused positions have -inf.
        """
        s, shortlist_size = self.ranker.settings, found.shortlist_size
        shortlist_M, uniform_M = found.rows_C[:shortlist_size], found.rows_C[shortlist_size + 1 :]
        others = np.flatnonzero(shortlist_M != target)
        hard = self.rng.permutation(others)[: s.hard_negatives]
        listed = (uniform_M[:, None] == shortlist_M).any(1)
        valid = (found.score_C[shortlist_size + 1 :] > -np.inf) & (uniform_M != target) & ~listed
        uniform = np.flatnonzero(valid) + shortlist_size + 1
        outside = open_titles - shortlist_size - (not in_shortlist)
        index = np.full(1 + s.hard_negatives + s.uniform_negatives, shortlist_size)
        log_correction = np.full(len(index), -np.inf, np.float32)
        log_correction[0] = 0.0 if in_shortlist else -1.0  # -1 marks a target outside the shortlist
        index[1 : 1 + len(hard)] = hard
        log_correction[1 : 1 + len(hard)] = np.log(max(len(others), 1) / max(len(hard), 1))
        start = 1 + s.hard_negatives
        index[start : start + len(uniform)] = uniform
        log_correction[start : start + len(uniform)] = np.log(max(outside, 1) / max(len(uniform), 1))
        self.ranker.add_example(found.signals_CF[index], log_correction)

    def is_finite(self) -> bool:
        """Whether all values that a score depends on are finite."""
        return self.ranker.is_finite() and (self.sequence is None or self.sequence.is_finite())

    def learn(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], new: Sequence[Sequence[int]], replay_share: float
    ) -> dict[str, float]:
        """Take the batch's training steps; returns the losses in nats of the parts that took one.

        `new` are the indices of each history's new events; `replay_share` scales the number of replayed windows.
        """
        if not self.learns:
            return {}
        loss = self.ranker.learn()
        losses = {} if loss is None else {"ranker": loss}
        if self.sequence is not None:
            catalog = snapshot.stream_state.catalog
            launched_C = np.flatnonzero(catalog.launch_sequence_V[: len(catalog)] < NOT_LAUNCHED)
            frequency_V = np.expm1(snapshot.titles.static_VF[:, CLOCKS - 1])  # the popularity that decays slowest
            titles = catalog, snapshot.count_V, launched_C, frequency_V
            report = self.sequence.learn(histories, new, *titles, replay_share)
            if report:
                losses["backbone"] = report.loss
        return losses

    def served_state(self, titles: int) -> dict[str, Any]:
        """The part of the state that scoring needs."""
        sequence = None if self.sequence is None else self.sequence.served_state(titles)
        return {"ranker": self.ranker.served_state(), "sequence": sequence}

    def training_state(self, titles: int) -> dict[str, Any]:
        """The part of the state that only training needs."""
        sequence = None if self.sequence is None else self.sequence.training_state(titles)
        return {
            "ranker": self.ranker.training_state(),
            "sequence": sequence,
            "rng": self.rng.bit_generator.state,
        }

    def load_served(self, state: dict[str, Any]) -> None:
        """Restore the state that `served_state` returned."""
        self.ranker.load_served(state["ranker"])
        if self.sequence is not None:
            self.sequence.load_served(state["sequence"])

    def load_training(self, state: dict[str, Any]) -> None:
        """Restore the state that `training_state` returned; call it after `load_served`."""
        self.ranker.load_training(state["ranker"])
        if self.sequence is not None:
            self.sequence.load_training(state["sequence"])
        self.rng.bit_generator.state = state["rng"]


def new_pipeline(settings: LearnerSettings, backbone: bool = True) -> RankingPipeline:
    """An untrained pipeline; without the backbone, the ranker does not get the backbone's signals."""
    hidden = () if backbone else ("backbone", "backbone minus top")
    ranker = Ranker(settings.ranker, settings.seed, hidden)
    sequence = SequenceModel(settings.sequence, settings.seed) if backbone else None
    return RankingPipeline(ranker, sequence, settings.shortlist, settings.seed)
