"""A model version that serves recommendations: ranks titles for users, and scores new titles for their lists.

A version is loaded from a checkpoint's weights, counters and ranker. It never learns. It accepts titles that launched
after the checkpoint was written and scores them from their text.

B users · L events of a history · H horizons · C candidates of one user · F ranker signals · V titles of the catalog
M a subset of titles · E width of a text embedding · D width of the backbone · P width of the scoring space
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model import checkpoint
from model.new_titles import NewTitles, choose_scored, new_candidates, select_titles
from model.pipeline import RankingPipeline, new_pipeline
from model.sequence.model import SequenceModel
from model.sequence.network import Network
from model.setting_paths import MODEL_GROUPS, with_values
from model.settings import LearnerSettings, with_text_width
from model.signals import candidates
from model.signals.candidates import Scores
from model.signals.fill import UserSignals
from model.signals.inputs import user_query
from model.signals.scorer import Scorer
from model.signals.snapshot import take_snapshot
from model.state.embedding_space import EmbeddingSpace
from model.state.new_events import admit_events
from model.state.stream_state import History, StreamState, TitleMetadata, UserUpdate


@dataclass(frozen=True)
class UserContext:
    """A user as the input of a recommendation, with string ids."""

    user: str
    titles: Sequence[str]  # the history, oldest event first, as are times and actions
    times: Sequence[int]  # ms
    actions: Sequence[int]  # codes
    seen: Sequence[str] | None  # titles to exclude; None: recommend seen titles too
    events: int  # the user's events with a positive weight so far


@dataclass(frozen=True)
class RankedLists:
    """A user's lists for all horizons, with the values that scoring another title for them needs."""

    titles: dict[int, list[str]]  # by horizon, best first
    scores: dict[int, NDArray[np.float32]]  # by horizon, of these titles
    query: NDArray[np.float32]  # [P] query vector of horizon 0
    top_score: NDArray[np.float32]  # [H] the backbone's highest logit in the shortlist
    query_time: int  # ms


class Recommender:
    """One model version in serving."""

    def __init__(self, stream_state: StreamState, pipeline: RankingPipeline) -> None:
        assert pipeline.sequence is not None
        self.stream_state, self.pipeline = stream_state, pipeline
        self.sequence: SequenceModel = pipeline.sequence
        self.horizons = self.sequence.settings.network.horizons
        self.scorer = Scorer(pipeline.ranker, self.horizons)
        if self.sequence.titles < len(stream_state.catalog):  # the state is of no learner that ranked with it
            self.sequence.refresh(stream_state.catalog, stream_state.refresh(in_turn=False))
        self.snapshot = take_snapshot(stream_state)
        self.static = candidates.static_scores(self.snapshot, pipeline.ranker)

    @classmethod
    def from_state(cls, state: Mapping[str, Any], settings: LearnerSettings) -> "Recommender":
        """Create a version from the parts `stream_state` and `served` of a learner's state."""
        settings = with_text_width(settings, StreamState.text_width(state["stream_state"]))
        stream_state, pipeline = StreamState(settings.stream_state), new_pipeline(settings)
        stream_state.load_state_dict(state["stream_state"])
        pipeline.load_served(state["served"]["full"])
        return cls(stream_state, pipeline)

    @classmethod
    def load(cls, url: str) -> "Recommender":
        """Load the version at a checkpoint's URL, with the settings with which it was learned.

        Raises CheckpointError if the checkpoint cannot be read.
        """
        state, manifest = checkpoint.load(url, ("stream_state", "served"))
        return cls.from_state(state, with_values(LearnerSettings(), MODEL_GROUPS, manifest.get("settings", {})))

    def update_titles(self, titles: Sequence[TitleMetadata]) -> None:
        """Apply titles that were launched, changed or withdrawn since the checkpoint was written."""
        self.stream_state.launch(titles)
        if titles:
            self._refresh()

    def count_events(self, updates: Sequence[UserUpdate]) -> None:
        """Count events that the checkpoint does not have yet, as the learner counts them; the weights stay."""
        for update in updates:
            _, events = admit_events(self.stream_state, update)
            for event in events:
                counted_at = min(event.ts, event.recorded)
                self.stream_state.count_event(event.history, event.row, counted_at, event.action, event.repeat)
        if updates:
            self._refresh()

    def _refresh(self) -> None:
        """Evict titles beyond the capacity, and compute what depends on the titles that changed since the last time."""
        evicted = self.stream_state.evict_titles()  # a version may serve for long while titles launch
        if len(evicted):
            self.sequence.evict_titles(evicted)
        rows = self.stream_state.refresh(in_turn=False)
        self.sequence.refresh(self.stream_state.catalog, rows)
        self.snapshot = take_snapshot(self.stream_state, self.snapshot)
        ranker = self.pipeline.ranker
        self.static = candidates.updated_static_scores(self.static, self.snapshot, ranker, rows)

    def erase_user(self, user: str) -> None:
        """Drop the user's history and counts, which also contribute to other users' lists."""
        self.stream_state.user_store.erase_user(user)

    def is_candidate(self, title: str) -> bool:
        """Whether the title is a candidate."""
        row = self.stream_state.catalog.rows.get(title)
        return row is not None and bool(self.snapshot.titles.candidate_V[row])

    @property
    def text_space(self) -> EmbeddingSpace:
        """The space of the text embeddings that this version reads."""
        return self.stream_state.text_space

    def free_capacity(self) -> int:
        """The number of titles that can still be added."""
        return max(0, self.stream_state.settings.max_titles - len(self.stream_state.catalog.rows))

    def title_encoder(self) -> "TitleEncoder":
        """The encoder of new titles, which keeps only the network of this version."""
        return TitleEncoder(self.sequence.served, self.text_space)

    def recommend(
        self, users: Sequence[UserContext], now: int | Sequence[int], size: int = 100, new_title_slots: int = 0
    ) -> list[RankedLists]:
        """The `size` best titles of each user for every horizon.

        The query time is `now` (ms, one for all users or one of each), or the user's last event if that is later.
        `new_title_slots` of the titles are reserved for new titles (see `model.new_titles`).
        """
        if not users:
            return []
        histories = [self._history(user) for user in users]
        nows = now if isinstance(now, Sequence) else [now] * len(users)
        query_times = [_query_time(history, own) for history, own in zip(histories, nows, strict=True)]
        hidden_BD = self.sequence.hidden_now(histories, query_times)
        query_BHP = self._queries(hidden_BD)
        backbone = self.sequence.scores_of(torch.from_numpy(query_BHP[:, 0]))
        text = candidates.text_scores(self.snapshot, histories)
        shortlist_size = max(self.pipeline.shortlist, size)
        extra_rows = self._scored_new_titles if new_title_slots else np.zeros(0, np.int64)
        listed_V = np.zeros(len(self.stream_state.catalog), bool)
        ranked = []
        for b, (user, history, query_time) in enumerate(zip(users, histories, query_times, strict=True)):
            signals = self._gather(user, history, query_time)
            scores = Scores(self.static, text[b], backbone[b])
            ranker, blocked = self.pipeline.ranker, self._blocked(user)
            found = candidates.generate_candidates(
                self.snapshot, ranker, signals, scores, blocked, shortlist_size, extra_rows
            )
            listed = found.rows_C[: found.shortlist_size]
            backbone_HC = self._backbone(query_BHP[b], found.rows_C)
            top_score_H = backbone_HC[:, : found.shortlist_size].max(1, initial=-np.inf)
            top_score_H[np.isneginf(top_score_H)] = 0.0
            valid_C = found.score_C > -np.inf
            listed_V[listed] = True
            scored_M = found.rows_C[found.shortlist_size :]
            valid_C[found.shortlist_size :] &= ~listed_V[scored_M]  # no duplicates of shortlisted titles
            listed_V[listed] = False
            rows_C = found.rows_C[valid_C]
            score_HC = self.scorer(found.signals_CF[valid_C], backbone_HC[:, valid_C], top_score_H)
            best = self._select(rows_C, score_HC, size, new_title_slots)
            ranked.append(RankedLists(*best, query_BHP[b, 0], top_score_H, query_time))
        return ranked

    def score(
        self, titles: Sequence[Sequence[str]], users: Sequence[UserContext], ranked: Sequence[RankedLists]
    ) -> list[NDArray[np.float32]]:
        """The scores that other titles would have had in `ranked`, for each user: [H, titles].

        This version must have computed `ranked`.
        """
        histories = [self._history(user) for user in users]
        hidden_BD = self.sequence.hidden_now(histories, [one.query_time for one in ranked])
        query_BHP, text = self._queries(hidden_BD), candidates.text_scores(self.snapshot, histories)
        scores = []
        for b, (user, history, one) in enumerate(zip(users, histories, ranked, strict=True)):
            signals = self._gather(user, history, one.query_time)
            rows_C = self.stream_state.catalog.rows_of(titles[b])
            backbone_HC = self._backbone(query_BHP[b], rows_C)
            signals_CF = candidates.signals_of(
                self.snapshot, signals, rows_C, text[b], backbone_HC[0], float(one.top_score[0])
            )
            scores.append(self.scorer(signals_CF, backbone_HC, one.top_score))
        return scores

    @property
    def new_titles(self) -> NewTitles:
        """The new titles of the catalog."""
        return self.snapshot.new_titles

    def _scored_new_titles(self, score_M: NDArray[np.float32]) -> NDArray[np.int64]:
        return choose_scored(self.new_titles, score_M)

    def _select(
        self, rows_C: NDArray[np.int64], score_HC: NDArray[np.float32], size: int, slots: int
    ) -> tuple[dict[int, list[str]], dict[int, NDArray[np.float32]]]:
        """The selected titles and their scores, by horizon."""
        ids, titles, scores = self.stream_state.catalog.ids, {}, {}
        new = new_candidates(self.stream_state.catalog, self.new_titles, rows_C)
        for h, horizon in enumerate(self.horizons):
            best = select_titles(new, score_HC[h], size, slots)
            titles[horizon] = [ids[row] for row in rows_C[best].tolist()]
            scores[horizon] = score_HC[h][best]
        return titles, scores

    def select(
        self, titles: Sequence[str], score_C: NDArray[np.float32], size: int, new_title_slots: int
    ) -> NDArray[np.int64]:
        """Indices of the titles of a list, best first, of titles that this version knows and their scores."""
        catalog = self.stream_state.catalog
        new = new_candidates(catalog, self.new_titles, catalog.rows_of(titles))
        best: NDArray[np.int64] = select_titles(new, score_C, size, new_title_slots)
        return best

    def _history(self, user: UserContext) -> History:
        rows_L = self.stream_state.catalog.rows_of(user.titles)
        times, actions = np.array(user.times, np.int64), np.array(user.actions, np.int64)
        return History(user.user, rows_L, times, actions)

    def _gather(self, user: UserContext, history: History, query_time: int) -> UserSignals:
        query = user_query(self.stream_state, history, query_time)._replace(user_events=user.events)
        return candidates.user_signals(self.snapshot, query)

    def _blocked(self, user: UserContext) -> NDArray[np.int32]:
        """Rows to exclude: the seen titles in the context, and older ones that only the learner's state holds."""
        if user.seen is None:
            return np.zeros(0, np.int32)
        rows = self.stream_state.catalog.rows_of(user.seen).astype(np.int32)
        return np.concatenate([rows, self.stream_state.user_store.seen_by(user.user)])

    def _backbone(self, query_HP: NDArray[np.float32], rows_C: NDArray[np.int64]) -> NDArray[np.float32]:
        """Backbone logits of these titles for every horizon, [H, C]."""
        logit_HC: NDArray[np.float32] = query_HP @ self.sequence.e_VP.numpy()[rows_C].T
        return logit_HC

    @torch.no_grad()
    def _queries(self, hidden_BD: torch.Tensor) -> NDArray[np.float32]:
        """Scaled query vectors, [B, H, P]; their product with a title vector is a logit."""
        served, horizons = self.sequence.served, len(self.horizons)
        horizon_N = torch.arange(horizons).repeat(len(hidden_BD))
        query_NP = served.query(hidden_BD.repeat_interleave(horizons, 0), horizon_N) * served.horizon_head.scale
        query_BHP: NDArray[np.float32] = query_NP.view(len(hidden_BD), horizons, -1).numpy()
        return query_BHP


class TitleEncoder:
    """A version's title encoding alone: maps a new title to a vector comparable with the version's query vectors."""

    def __init__(self, network: Network, text_space: EmbeddingSpace) -> None:
        self.network, self.text_space = network, text_space

    @torch.no_grad()
    def __call__(self, semantic_E: NDArray[np.float32]) -> NDArray[np.float32]:
        """e_P of a title without events, from its text embedding `semantic_E`, which is all zeros without text."""
        tower_1D = self.network.title_vectors(torch.tensor(semantic_E)[None], None, torch.zeros(1))
        e_P: NDArray[np.float32] = self.network.candidates(tower_1D)[0].numpy()
        return e_P


def _query_time(history: History, now: int) -> int:
    """The query time in ms: not before the last event, or a producer's fast clock would turn time back."""
    return max(now, int(history.times_L[-1])) if len(history.times_L) else now
