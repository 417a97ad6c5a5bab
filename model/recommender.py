"""A published version at work: ranks all titles for viewers, and a single new title for many viewers.

It is made from a checkpoint's weights, counters and ranker, never learns, and takes titles that launched after the
version was written: a new title is scored from its text at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model import checkpoint, lists, signals
from model.contender import Contender
from model.learner import LearnerSettings, new_contender
from model.lists import View
from model.memory import Launched, Memory, Past
from model.sequence import SequenceModel
from model.signals import COLUMN, Asked


@dataclass(frozen=True)
class Viewer:
    """A user as the server knows them: history oldest first, all titles seen, events so far."""

    user: str
    titles: Sequence[str]
    times: Sequence[int]  # ms
    actions: Sequence[int]
    seen: Sequence[str]  # titles to leave out; empty where seen titles are not filtered
    events: int


@dataclass(frozen=True)
class Ranked:
    """A viewer's lists by horizon (events of delay), best first, their scores, and the query vector of horizon 0."""

    titles: dict[int, list[str]]
    scores: dict[int, NDArray[np.float32]]
    query_P: NDArray[np.float32]


class Recommender:
    """One version. `add` titles, then ask."""

    def __init__(self, memory: Memory, contender: Contender) -> None:
        assert contender.sequence is not None
        self.memory, self.contender = memory, contender
        self.sequence: SequenceModel = contender.sequence
        self.horizons = self.sequence.settings.network.horizons
        self._look()

    @classmethod
    def from_state(cls, state: Mapping[str, Any], settings: LearnerSettings) -> "Recommender":
        """The version in a learner's state: its parts `memory` and `served`."""
        memory, contender = Memory(settings.memory), new_contender(settings)
        memory.load_state_dict(state["memory"])
        contender.load_served(state["served"]["premiere"])
        return cls(memory, contender)

    @classmethod
    def load(cls, url: str, settings: LearnerSettings) -> "Recommender":
        """The version at a checkpoint's URL. Raises CheckpointError."""
        state, _ = checkpoint.load(url, ("memory", "served"))
        return cls.from_state(state, settings)

    def add(self, titles: Sequence[Launched]) -> None:
        """Take in titles that launched, changed or were withdrawn since the version was written."""
        self.memory.launch(titles)
        if titles:
            self._look()

    def recommend(self, viewers: Sequence[Viewer], now: int, size: int = 100) -> list[Ranked]:
        """Each viewer's `size` best titles for every horizon, as of `now` ms (or their last event, if that is later)."""
        pasts = [self._past(viewer) for viewer in viewers]
        hidden_BD = self.sequence.now(pasts, [_moment(past, now) for past in pasts])
        backbone_HBV = [self.sequence.scores(hidden_BD, place) for place in range(len(self.horizons))]
        query_BP = self._queries(hidden_BD)
        text_BV = lists.text_scores(self.memory, pasts)
        static_V = lists.static_scores(self.on, self.contender.ranker)
        ranked = []
        for b, (viewer, past) in enumerate(zip(viewers, pasts, strict=True)):
            asked = self._gather(viewer, past, now)
            backbone_HV = np.stack([backbone_BV[b] for backbone_BV in backbone_HBV])
            blocked = self.memory.catalogue.find(viewer.seen).astype(np.int32)
            none = np.zeros(0, np.int64)
            found = lists.find(
                self.on,
                self.contender.ranker,
                asked,
                past,
                text_BV[b],
                backbone_HV[0],
                static_V,
                blocked,
                max(self.contender.shortlist, size),
                none,
            )
            score_HC = self._by_horizon(found.signals_CF, found.rows_C, backbone_HV)
            ranked.append(self._ranked(found.rows_C, score_HC, size, query_BP[b]))
        return ranked

    def affinity(self, title: str, query_NP: NDArray[np.float32]) -> NDArray[np.float32]:
        """The backbone's score of one title for cached query vectors of this version: [N], one product each."""
        row = self.memory.catalogue.rows[title]
        return np.asarray(query_NP @ self.sequence.e_VP[row].numpy())

    def score(self, title: str, viewers: Sequence[Viewer], now: int) -> NDArray[np.float32]:
        """The ranker's score of one title for viewers, comparable with `Ranked.scores`: [N, H]."""
        pasts = [self._past(viewer) for viewer in viewers]
        hidden_BD = self.sequence.now(pasts, [_moment(past, now) for past in pasts])
        row = self.memory.catalogue.rows[title]
        backbone_HBV = [self.sequence.scores(hidden_BD, place) for place in range(len(self.horizons))]
        text_BV = lists.text_scores(self.memory, pasts)
        score_NH = np.empty((len(viewers), len(self.horizons)), np.float32)
        for b, (viewer, past) in enumerate(zip(viewers, pasts, strict=True)):
            asked = self._gather(viewer, past, now)
            backbone_HV = np.stack([backbone_BV[b] for backbone_BV in backbone_HBV])
            self.on.scratch.moving_MV[signals.TEXT] = text_BV[b]
            self.on.scratch.moving_MV[signals.BACKBONE] = backbone_HV[0]
            rows_C = np.array([row])
            signals_CF = lists.read(self.on, asked, past, rows_C, float(backbone_HV[0].max()))
            score_NH[b] = self._by_horizon(signals_CF, rows_C, backbone_HV)[:, 0]
        return score_NH

    def _by_horizon(
        self, signals_CF: NDArray[np.float32], rows_C: NDArray[np.int64], backbone_HV: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The ranker's scores [H, C]: the same signals, with each horizon's backbone and delay in their columns."""
        signals_HCF = np.repeat(signals_CF[None], len(self.horizons), 0)
        for place, delay in enumerate(self.horizons):
            backbone_C = backbone_HV[place][rows_C]
            best = float(backbone_HV[place].max()) if len(rows_C) == 1 else lists.lead(backbone_HV[place], rows_C)
            signals_HCF[place, :, COLUMN["backbone"]] = backbone_C
            signals_HCF[place, :, COLUMN["backbone lead"]] = backbone_C - best
            signals_HCF[place, :, COLUMN["delay"]] = np.log1p(delay)
        return self.contender.ranker.score(signals_HCF)

    def _ranked(
        self, rows_C: NDArray[np.int64], score_HC: NDArray[np.float32], size: int, query_P: NDArray[np.float32]
    ) -> Ranked:
        titles, scores = {}, {}
        for place, delay in enumerate(self.horizons):
            best = np.argsort(-score_HC[place], kind="stable")[:size]
            titles[delay] = [self.memory.catalogue.ids[row] for row in rows_C[best]]
            scores[delay] = score_HC[place][best]
        return Ranked(titles, scores, query_P)

    def _past(self, viewer: Viewer) -> Past:
        rows_L = self.memory.catalogue.find(viewer.titles)
        times, actions = np.array(viewer.times, np.int64), np.array(viewer.actions, np.int64)
        return Past(viewer.user, rows_L, times, actions)

    def _gather(self, viewer: Viewer, past: Past, now: int) -> Asked:
        asked = self.memory.asked(past, _moment(past, now))._replace(events=viewer.events)
        signals.gather(asked, self.on.titles, self.memory.counters, self.on.scratch)
        return asked

    @torch.no_grad()
    def _queries(self, hidden_BD: torch.Tensor) -> NDArray[np.float32]:
        served = self.sequence.served
        first = torch.zeros(len(hidden_BD), dtype=torch.int64)
        query_BP: NDArray[np.float32] = (served.query(hidden_BD, first) * served.decoder.scale).numpy()
        return query_BP

    def _look(self) -> None:
        self.sequence.refresh(self.memory.catalogue)
        self.on: View = lists.view(self.memory)


def _moment(past: Past, now: int) -> int:
    """A question is never asked before the last thing known: one clock ahead must not turn time back."""
    return max(now, int(past.times_L[-1])) if len(past.times_L) else now
