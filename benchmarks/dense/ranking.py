"""The dense reference of `benchmarks.scale`: recommends, launches and learns with work over all titles each time.

It reads the stream state and the weights of the product's learner, and keeps what it computes from them to itself: the
signals, the texts and the vectors of all titles. Parts whose cost does not depend on the catalog are the product's.

V titles · C candidates · N requests · H horizons · B users · D width of the backbone · P width of the scoring space ·
E width of a text embedding · F ranker signals · K text neighbors of a title
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.dense.fill import DenseScores, DenseScratch, DenseUserSignals, fill_signals, new_scratch, shortlist
from benchmarks.dense.gather import gather_user_signals
from benchmarks.dense.inputs import (
    TEXT_TITLES,
    DenseTitleSignals,
    centered_text,
    text_scores,
    title_signals,
    user_query,
)
from model.new_titles import NewTitles, choose_scored, find_new_titles, new_candidates, select_titles
from model.pipeline import RankingPipeline
from model.recommender import UserContext
from model.sequence.model import SequenceModel
from model.sequence.network import TitleInputs, encode_titles
from model.signals.ranker import Ranker
from model.signals.scorer import Scorer
from model.signals.table import COLUMN, SIGNALS, STATICS
from model.state.stream_state import History, StreamState, TitleMetadata
from model.state.text_neighbors import NEIGHBORS_PER_TITLE, NO_NEIGHBOR

TEXT_COLUMNS: Final = slice(COLUMN["text last"], COLUMN["text closest three"] + 1)


class Found(NamedTuple):
    """The shortlist of one query, then its extra rows, with their signals; and the linear score of all titles."""

    rows_C: NDArray[np.int64]
    shortlist_size: int
    signals_CF: NDArray[np.float32]
    score_V: NDArray[np.float32]


class DenseRanking:
    """Ranks all titles for a query. `refresh` reads the whole catalog; until the next one, later events are unseen."""

    def __init__(self, state: StreamState, pipeline: RankingPipeline) -> None:
        assert pipeline.sequence is not None
        self.state, self.pipeline = state, pipeline
        self.ranker: Ranker = pipeline.ranker
        self.sequence: SequenceModel = pipeline.sequence
        self.refresh()

    @cached_property
    def scorer(self) -> Scorer:
        """The ranker as a version serves it."""
        return Scorer(self.ranker, self.sequence.settings.network.horizons)

    def refresh(self) -> None:
        """Read the signals and texts of all titles, and encode all titles."""
        catalog = self.state.catalog
        n = len(catalog)
        self._take_snapshot()
        self.tower_VD, self.e_VP = self._encode(slice(None), self.sequence.optimizers.rows.table_VI[:n])

    def _take_snapshot(self) -> None:
        self.titles: DenseTitleSignals = title_signals(self.state)
        self.scratch: DenseScratch = new_scratch(len(self.state.catalog), len(self.titles.interactions.user_count_U))
        self.text_VE = centered_text(self.state, self.titles.has_text_V)
        self.static_V = self.titles.static_VF @ self.ranker.linear_weights_F[:STATICS]
        self.new_titles: NewTitles = find_new_titles(self.state.catalog)

    def _encode(self, at: slice | Tensor, id_MI: Tensor) -> tuple[Tensor, Tensor]:
        """tower_MD and e_MP of these titles, with the averaged weights."""
        catalog = self.state.catalog
        semantic_VE, count_V = (torch.from_numpy(x[: len(catalog)]) for x in (catalog.semantic_VE, catalog.count_V))
        inputs = TitleInputs(semantic_VE[at], id_MI, count_V[at], torch.zeros(0).long())
        return encode_titles(self.sequence.served, inputs)

    def recommend(
        self, users: Sequence[UserContext], now: int, size: int, new_title_slots: int
    ) -> list[dict[int, list[str]]]:
        """The titles of each user's lists, by horizon."""
        catalog, horizons = self.state.catalog, self.sequence.settings.network.horizons
        histories = [self._history(user) for user in users]
        hidden_BD = self.sequence.hidden_now(histories, [max(now, int(h.times_L[-1])) for h in histories])
        query_BHP = self._queries(hidden_BD, len(horizons))
        backbone_BV = (query_BHP[:, 0] @ self.e_VP.T).numpy()
        text_BV = text_scores(self.text_VE, histories)
        new_titles, lists = self.new_titles, []
        for b, (user, history) in enumerate(zip(users, histories, strict=True)):
            blocked = catalog.rows_of(user.seen or ()).astype(np.int32)
            blocked = np.concatenate([blocked, self.state.user_store.seen_by(user.user)])
            signals = self.user_signals(history, now, user.events)
            scores = DenseScores(self.static_V, text_BV[b], backbone_BV[b])
            rows_C, score_V = self.shortlist(signals, scores, blocked, max(self.pipeline.shortlist, size))
            scored_M = choose_scored(new_titles, score_V[new_titles.competing_M])
            scored_M = scored_M[~np.isin(scored_M, rows_C) & (score_V[scored_M] > -np.inf)]
            found = self.candidates(signals, backbone_BV[b], rows_C, scored_M, score_V)
            backbone_HC = (query_BHP[b] @ self.e_VP[torch.from_numpy(found.rows_C)].T).numpy()
            top_H = backbone_HC[:, : found.shortlist_size].max(1, initial=0.0 if not found.shortlist_size else -np.inf)
            score_HC = self.scorer(found.signals_CF, backbone_HC, top_H)
            new = new_candidates(catalog, new_titles, found.rows_C)
            selected = (select_titles(new, s, size, new_title_slots) for s in score_HC)
            titles = ([catalog.ids[row] for row in found.rows_C[best].tolist()] for best in selected)
            lists.append(dict(zip(horizons, titles, strict=True)))
        return lists

    def launch(self, title: TitleMetadata) -> None:
        """Take one new title into a version that serves: find its text neighbors, encode it, read all titles anew."""
        state = self.state
        state.sequence += 1
        row = state.ensure_row(title.title)
        values = title.semantic, title.genres, title.year, title.released
        state.catalog.launch(row, *values, state.sequence, title.recorded)
        self._find_neighbors(row)
        at = torch.tensor([row])
        tower_1D, e_1P = self._encode(at, self.sequence.optimizers.rows.table_VI[at])
        self.tower_VD, self.e_VP = torch.cat([self.tower_VD, tower_1D]), torch.cat([self.e_VP, e_1P])
        self._take_snapshot()

    def _find_neighbors(self, row: int) -> None:
        """The nearest of all settled titles by text."""
        catalog, neighbors = self.state.catalog, self.state.catalog.text_neighbors
        semantic_VE = catalog.semantic_VE[: len(catalog)]
        cosine_V = (semantic_VE @ semantic_VE[row]) * neighbors.settled_V[: len(catalog)]
        cosine_V[row] = 0
        nearest_K = np.argpartition(-cosine_V, NEIGHBORS_PER_TITLE)[:NEIGHBORS_PER_TITLE]
        neighbors.to_VK[row] = np.where(cosine_V[nearest_K] > 0, nearest_K, NO_NEIGHBOR)
        neighbors.cosine_VK[row] = np.maximum(cosine_V[nearest_K], 0)

    def user_signals(self, history: History, now: int, events: int | None = None, delay: int = 0) -> DenseUserSignals:
        """The query user's signals for all titles; valid until the next call."""
        query = user_query(self.state, history, now, delay)
        query = query if events is None else query._replace(user_events=events)
        return gather_user_signals(query, self.titles, self.state.counters, self.scratch)

    def shortlist(
        self, user: DenseUserSignals, scores: DenseScores, blocked: NDArray[np.int32], limit: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The best rows by the linear score of all titles, and these scores."""
        return shortlist(self.titles, user, scores, self.ranker.linear_weights_F, blocked, limit)

    def candidates(
        self,
        user: DenseUserSignals,
        backbone_V: NDArray[np.float32],
        shortlist_C: NDArray[np.int64],
        extra: NDArray[np.int64],
        score_V: NDArray[np.float32],
    ) -> Found:
        """The shortlist and the extra rows with all signals."""
        rows_C = np.concatenate([shortlist_C, extra])
        top_score = float(backbone_V[shortlist_C].max()) if len(shortlist_C) else 0.0
        signals_CF = np.empty((len(rows_C), len(SIGNALS)), np.float32)
        fill_signals(user, self.titles, rows_C, top_score, signals_CF)
        signals_CF[:, TEXT_COLUMNS] = 0
        recent_L = user.query.recent_L[:TEXT_TITLES]
        if len(recent_L) and len(rows_C):
            text_CE, recent_LE = (torch.from_numpy(self.text_VE[rows]) for rows in (rows_C, recent_L))
            cosine_CL = (text_CE @ recent_LE.T).numpy()
            nearest_C3 = np.sort(cosine_CL, 1)[:, -3:]
            signals_CF[:, TEXT_COLUMNS] = np.stack([cosine_CL[:, 0], nearest_C3[:, -1], nearest_C3.mean(1)], 1)
        return Found(rows_C, len(shortlist_C), signals_CF, score_V)

    @torch.no_grad()
    def backbone_scores(self, hidden_ND: Tensor, horizon: int) -> NDArray[np.float32]:
        """Logits of all titles, [N, V]; `horizon` is an index into the settings' horizons."""
        query_NP = self.sequence.served.query(hidden_ND, torch.full((len(hidden_ND),), horizon, dtype=torch.int64))
        logit_NV: NDArray[np.float32] = (query_NP * self.sequence.served.horizon_head.scale @ self.e_VP.T).numpy()
        return logit_NV

    def _history(self, user: UserContext) -> History:
        rows_L = self.state.catalog.rows_of(user.titles)
        return History(user.user, rows_L, np.array(user.times, np.int64), np.array(user.actions, np.int64))

    @torch.no_grad()
    def _queries(self, hidden_BD: Tensor, horizons: int) -> Tensor:
        """Scaled query vectors, [B, H, P]."""
        served = self.sequence.served
        horizon_N = torch.arange(horizons).repeat(len(hidden_BD))
        query_NP = served.query(hidden_BD.repeat_interleave(horizons, 0), horizon_N) * served.horizon_head.scale
        return query_NP.view(len(hidden_BD), horizons, -1)
