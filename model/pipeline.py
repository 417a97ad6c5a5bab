"""One model over a memory: a ranker, with or without a sequence model, that ranks an event first and may learn from it.

Several contenders can share one memory, which is how the evaluation compares a model with the same model frozen, or
with what its counters can do alone, on the very same stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.metrics.ranking import average_rank
from model.sequence.model import SequenceModel
from model.signals import candidates
from model.signals.candidates import CatalogSnapshot
from model.signals.ranker import Ranker
from model.signals.table import Query
from model.state.catalog import NEVER
from model.state.counters import CLOCKS
from model.state.stream_state import History


@dataclass(frozen=True)
class RankingRequest:
    """What did `history.user` take after `history`, at `now` ms? It was `target`, and `action` what they did. `history` and
    `event` say where in the batch it lies; `delay`: asked as if that many events were unknown; `ranked` false: it is
    only counted."""

    history: History
    now: int
    target: int
    action: int
    history_index: int
    event_index: int
    delay: int = 0
    ranked: bool = True


class RankResult(NamedTuple):
    """The target's rank, and the rows of the best candidates, best first."""

    rank: float
    best_T: NDArray[np.int64]


class RankingPipeline:
    """`learns` false: frozen. `shortlist`: how many candidates the ranker orders."""

    def __init__(
        self, ranker: Ranker, sequence: SequenceModel | None, shortlist: int = 400, seed: int = 0, learns: bool = True
    ) -> None:
        self.ranker, self.sequence, self.shortlist, self.learns = ranker, sequence, shortlist, learns
        self.rng = np.random.default_rng(seed)

    def prepare(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        """Score all titles for the batch's questions, with the weights from before the batch."""
        self.static_V = candidates.static_scores(snapshot, self.ranker)
        self.backbone_NV = np.zeros((len(requests), len(snapshot.titles.candidate_V)), np.float32)
        if self.sequence is None:
            return
        self.sequence.refresh(snapshot.stream_state.catalog)
        horizons = self.sequence.settings.network.horizons
        fresh = np.array([n for n, q in enumerate(requests) if q.delay == 0], np.int64)
        if len(fresh):
            window_N = np.array([requests[n].history_index for n in fresh])
            event_N = np.array([requests[n].event_index for n in fresh])
            hidden_ND = self.sequence.before_events(histories, window_N, event_N)
            self.backbone_NV[fresh] = self.sequence.scores(hidden_ND, 0)
        for place, delay in enumerate(horizons[1:], 1):
            late = [n for n, q in enumerate(requests) if q.delay == delay]
            if late:
                hidden_ND = self.sequence.now([requests[n].history for n in late], [requests[n].now for n in late])
                self.backbone_NV[late] = self.sequence.scores(hidden_ND, place)

    def rank(
        self,
        snapshot: CatalogSnapshot,
        request: RankingRequest,
        n: int,
        query: Query,
        text_V: NDArray[np.float32],
        blocked: NDArray[np.int32],
        top: int = 0,
    ) -> RankResult:
        """The target's rank and the `top` best; the record that learning needs is kept. `n` is the question's place in
        the batch."""
        settings = self.ranker.settings
        known = len(snapshot.titles.candidate_V)
        easy = self.rng.integers(0, known, settings.easy) if self.learns else np.zeros(0, np.int64)
        extra_rows = np.concatenate([[request.target], easy])
        found = candidates.find(
            snapshot,
            self.ranker,
            query,
            request.history,
            text_V,
            self.backbone_NV[n],
            self.static_V,
            blocked,
            self.shortlist,
            extra_rows,
        )
        place = np.flatnonzero(found.rows_C[: found.listed] == request.target)
        candidate = bool(found.score_V[request.target] > -np.inf)
        if self.learns and candidate:
            self._remember(found, len(place) > 0, request.target)
        if request.delay:
            return RankResult(0.0, np.zeros(0, np.int64))
        best_T, score_C = found.rows_C[:0], np.zeros(0, np.float32)
        if len(place) or top:
            score_C = self.ranker.score(found.signals_CF[: found.listed])
            best_T = found.rows_C[np.argsort(-score_C, kind="stable")[:top]]
        if len(place):
            return RankResult(average_rank(score_C, int(place[0])), best_T)
        return RankResult(max(average_rank(found.score_V, request.target), found.listed + 1.0), best_T)

    def _remember(self, found: candidates.Candidates, inside: bool, target: int) -> None:
        """Keep the target's signals beside a sample of the shortlist and of all other candidates."""
        s, listed = self.ranker.settings, found.listed
        others = np.flatnonzero(found.rows_C[:listed] != target)
        hard = self.rng.permutation(others)[: s.hard]
        easy = found.rows_C[listed + 1 :]
        fits = (found.score_V[easy] > -np.inf) & (easy != target) & ~(easy[:, None] == found.rows_C[:listed]).any(1)
        easy_places = np.flatnonzero(fits) + listed + 1
        beyond = int(np.count_nonzero(found.score_V > -np.inf)) - listed - (not inside)
        places = np.full(1 + s.hard + s.easy, listed)
        share = np.full(len(places), -np.inf, np.float32)
        share[0] = 0.0 if inside else -1.0
        places[1 : 1 + len(hard)] = hard
        share[1 : 1 + len(hard)] = np.log(max(len(others), 1) / max(len(hard), 1))
        start = 1 + s.hard
        places[start : start + len(easy_places)] = easy_places
        share[start : start + len(easy_places)] = np.log(max(beyond, 1) / max(len(easy_places), 1))
        self.ranker.remember(found.signals_CF[places], share)

    def learn(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], new: Sequence[Sequence[int]], replay: float
    ) -> dict[str, float]:
        """Take the batch's training steps; losses in nats of what took one."""
        if not self.learns:
            return {}
        loss = self.ranker.learn()
        losses = {} if loss is None else {"ranker": loss}
        if self.sequence is not None:
            catalog = snapshot.stream_state.catalog
            launched_M = np.flatnonzero(catalog.born_V[: len(catalog)] < NEVER)
            frequency_V = np.expm1(snapshot.titles.static_VS[:, CLOCKS - 1])  # by the slowest clock of events
            known = catalog, snapshot.count_V, launched_M, frequency_V
            report = self.sequence.learn(histories, new, *known, replay)
            if report:
                losses["backbone"] = report.loss
        return losses

    def served_state(self, titles: int) -> dict[str, Any]:
        """What scoring needs."""
        sequence = None if self.sequence is None else self.sequence.served_state(titles)
        return {"ranker": self.ranker.served_state(), "sequence": sequence}

    def training_state(self, titles: int) -> dict[str, Any]:
        """What else decides the steps that follow."""
        sequence = None if self.sequence is None else self.sequence.training_state(titles)
        return {
            "ranker": self.ranker.training_state(),
            "sequence": sequence,
            "rng": self.rng.bit_generator.state,
        }

    def load_served(self, state: dict[str, Any]) -> None:
        self.ranker.load_served(state["ranker"])
        if self.sequence is not None:
            self.sequence.load_served(state["sequence"])

    def load_training(self, state: dict[str, Any]) -> None:
        """After `load_served`."""
        self.ranker.load_training(state["ranker"])
        if self.sequence is not None:
            self.sequence.load_training(state["sequence"])
        self.rng.bit_generator.state = state["rng"]
