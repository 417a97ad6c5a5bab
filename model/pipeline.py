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
from model.signals.candidates import View
from model.signals.ranker import Ranker
from model.signals.table import Asked
from model.state.catalog import NEVER
from model.state.counters import CLOCKS
from model.state.stream_state import Past


@dataclass(frozen=True)
class Question:
    """What did `past.user` take after `past`, at `now` ms? It was `target`, and `action` what they did. `history` and
    `event` say where in the batch it lies; `delay`: asked as if that many events were unknown; `ranked` false: it is
    only counted."""

    past: Past
    now: int
    target: int
    action: int
    history_index: int
    event_index: int
    delay: int = 0
    ranked: bool = True


class Standing(NamedTuple):
    """The target's rank, and the rows of the best candidates, best first."""

    rank: float
    best_T: NDArray[np.int64]


class Contender:
    """`learns` false: frozen. `shortlist`: how many candidates the ranker orders."""

    def __init__(
        self, ranker: Ranker, sequence: SequenceModel | None, shortlist: int = 400, seed: int = 0, learns: bool = True
    ) -> None:
        self.ranker, self.sequence, self.shortlist, self.learns = ranker, sequence, shortlist, learns
        self.rng = np.random.default_rng(seed)

    def prepare(self, on: View, histories: Sequence[Past], questions: Sequence[Question]) -> None:
        """Score all titles for the batch's questions, with the weights from before the batch."""
        self.static_V = candidates.static_scores(on, self.ranker)
        self.backbone_NV = np.zeros((len(questions), len(on.titles.candidate_V)), np.float32)
        if self.sequence is None:
            return
        self.sequence.refresh(on.memory.catalogue)
        horizons = self.sequence.settings.network.horizons
        fresh = np.array([n for n, q in enumerate(questions) if q.delay == 0], np.int64)
        if len(fresh):
            window_N = np.array([questions[n].history_index for n in fresh])
            event_N = np.array([questions[n].event_index for n in fresh])
            hidden_ND = self.sequence.before_events(histories, window_N, event_N)
            self.backbone_NV[fresh] = self.sequence.scores(hidden_ND, 0)
        for place, delay in enumerate(horizons[1:], 1):
            late = [n for n, q in enumerate(questions) if q.delay == delay]
            if late:
                hidden_ND = self.sequence.now([questions[n].past for n in late], [questions[n].now for n in late])
                self.backbone_NV[late] = self.sequence.scores(hidden_ND, place)

    def rank(
        self,
        on: View,
        question: Question,
        n: int,
        asked: Asked,
        text_V: NDArray[np.float32],
        blocked: NDArray[np.int32],
        top: int = 0,
    ) -> Standing:
        """The target's rank and the `top` best; the record that learning needs is kept. `n` is the question's place in
        the batch."""
        settings = self.ranker.settings
        known = len(on.titles.candidate_V)
        easy = self.rng.integers(0, known, settings.easy) if self.learns else np.zeros(0, np.int64)
        also = np.concatenate([[question.target], easy])
        found = candidates.find(
            on,
            self.ranker,
            asked,
            question.past,
            text_V,
            self.backbone_NV[n],
            self.static_V,
            blocked,
            self.shortlist,
            also,
        )
        place = np.flatnonzero(found.rows_C[: found.listed] == question.target)
        candidate = bool(found.score_V[question.target] > -np.inf)
        if self.learns and candidate:
            self._remember(found, len(place) > 0, question.target)
        if question.delay:
            return Standing(0.0, np.zeros(0, np.int64))
        best_T, score_C = found.rows_C[:0], np.zeros(0, np.float32)
        if len(place) or top:
            score_C = self.ranker.score(found.signals_CF[: found.listed])
            best_T = found.rows_C[np.argsort(-score_C, kind="stable")[:top]]
        if len(place):
            return Standing(average_rank(score_C, int(place[0])), best_T)
        return Standing(max(average_rank(found.score_V, question.target), found.listed + 1.0), best_T)

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
        self, on: View, histories: Sequence[Past], new: Sequence[Sequence[int]], replay: float
    ) -> dict[str, float]:
        """Take the batch's training steps; losses in nats of what took one."""
        if not self.learns:
            return {}
        loss = self.ranker.learn()
        losses = {} if loss is None else {"ranker": loss}
        if self.sequence is not None:
            catalogue = on.memory.catalogue
            launched_M = np.flatnonzero(catalogue.born_V[: len(catalogue)] < NEVER)
            frequency_V = np.expm1(on.titles.static_VS[:, CLOCKS - 1])  # by the slowest clock of events
            known = catalogue, on.count_V, launched_M, frequency_V
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
