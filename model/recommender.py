"""A published version at work: ranks all titles for viewers, and a single new title for many viewers.

It is made from a checkpoint's weights, counters and ranker, never learns, and takes titles that launched after the
version was written: a new title is scored from its text at once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from model import checkpoint
from model.actions import ACTIONS
from model.learner import LearnerSettings, new_pipeline
from model.pipeline import RankingPipeline
from model.sequence.model import SequenceModel
from model.sequence.network import Network, NetworkSettings
from model.signals import candidates, table
from model.signals.candidates import CatalogSnapshot
from model.signals.gather import gather
from model.signals.scorer import Scorer
from model.signals.table import Query
from model.state.stream_state import History, StreamState, TitleMetadata

FRESH: Final = 64  # newest titles without an event, which compete for the places that a list keeps


@dataclass(frozen=True)
class Viewer:
    """A user as the server knows them: history oldest first; titles seen, or None where they may be shown again."""

    user: str
    titles: Sequence[str]
    times: Sequence[int]  # ms
    actions: Sequence[int]
    seen: Sequence[str] | None
    events: int  # that count as targets


@dataclass(frozen=True)
class RankedEvent:
    """A viewer's lists by horizon (events of delay), best first, and their scores; with what a further title's score is
    made of: the query vector of horizon 0, the backbone's lead by horizon, and the moment (ms). `fresh` are the titles
    that places were kept for."""

    titles: dict[int, list[str]]
    scores: dict[int, NDArray[np.float32]]
    query: NDArray[np.float32]  # [P]
    lead: NDArray[np.float32]  # [H]
    moment: int
    fresh: frozenset[str] = frozenset()


class Recommender:
    """One version. `add` titles, then ask."""

    def __init__(self, stream_state: StreamState, pipeline: RankingPipeline) -> None:
        assert pipeline.sequence is not None
        self.stream_state, self.pipeline = stream_state, pipeline
        self.sequence: SequenceModel = pipeline.sequence
        self.horizons = self.sequence.settings.network.horizons
        self.scorer = Scorer(pipeline.ranker, self.horizons)
        self._look()

    @classmethod
    def from_state(cls, state: Mapping[str, Any], settings: LearnerSettings) -> "Recommender":
        """The version in a learner's state: its parts `stream_state` and `served`."""
        stream_state, pipeline = StreamState(settings.memory), new_pipeline(settings)
        stream_state.load_state_dict(state["stream_state"])
        pipeline.load_served(state["served"]["full"])
        return cls(stream_state, pipeline)

    @classmethod
    def load(cls, url: str, settings: LearnerSettings) -> "Recommender":
        """The version at a checkpoint's URL. Raises CheckpointError, also where its network is another one."""
        state, manifest = checkpoint.load(url, ("stream_state", "served"))
        network, default = _written(settings.sequence.network), _written(NetworkSettings())
        made = manifest.get("settings", {}).get("sequence", {}).get("network", network)
        if {**default, **made} != network:  # with what later settings do by default
            raise checkpoint.CheckpointError(
                f"The checkpoint at {url} holds another network than the settings name: "
                "give `publish` the model and the horizons that `learn` has."
            )
        return cls.from_state(state, settings)

    def add(self, titles: Sequence[TitleMetadata]) -> None:
        """Take in titles that launched, changed or were withdrawn since the version was written."""
        self.stream_state.launch(titles)
        if titles:
            self._look(self.stream_state.catalog.find(dict.fromkeys(title.title for title in titles)))

    def erase_user(self, user: str) -> None:
        """Drop what the version keeps of a user: others' lists are made without it."""
        self.stream_state.user_store.erase_user(user)

    def known(self, title: str) -> bool:
        """Whether the title is a candidate."""
        row = self.stream_state.catalog.rows.get(title)
        return row is not None and bool(self.snapshot.titles.candidate_V[row])

    def room(self) -> int:
        """How many titles may still come."""
        return max(0, self.stream_state.settings.most_titles - len(self.stream_state.catalog.rows))

    def encoder(self) -> "TitleEncoder":
        """This version's view of new titles, without the rest of it."""
        return TitleEncoder(self.sequence.served)

    def recommend(self, viewers: Sequence[Viewer], now: int, size: int = 100, kept: int = 0) -> list[RankedEvent]:
        """Each viewer's `size` best titles for every horizon, as of `now` ms or of their last event, if later; `kept`
        places go to the best of the fresh titles (see `choose`)."""
        if not viewers:
            return []
        histories = [self._history(viewer) for viewer in viewers]
        moments = [_moment(history, now) for history in histories]
        hidden_BD = self.sequence.now(histories, moments)
        query_BHP = self._queries(hidden_BD)
        backbone_BV, text_BV = self.sequence.scores(hidden_BD, 0), candidates.text_scores(self.snapshot, histories)
        static_V = candidates.static_scores(self.snapshot, self.pipeline.ranker)
        most, extra_rows = max(self.pipeline.shortlist, size), self.fresh_F if kept else self.fresh_F[:0]
        listed_V, fresh_V = np.zeros((2, len(static_V)), bool)
        fresh_V[extra_rows] = True
        ranked = []
        for b, (viewer, history, moment) in enumerate(zip(viewers, histories, moments, strict=True)):
            query = self._gather(viewer, history, moment)
            scores = text_BV[b], backbone_BV[b], static_V
            ranker, blocked = self.pipeline.ranker, self._blocked(viewer)
            found = candidates.find(self.snapshot, ranker, query, history, *scores, blocked, most, extra_rows)
            listed = found.rows_C[: found.listed]
            backbone_HC = self._backbone(query_BHP[b], found.rows_C)
            lead_H = backbone_HC[:, : found.listed].max(1, initial=-np.inf)
            lead_H[np.isneginf(lead_H)] = 0.0
            fits_C = found.score_V[found.rows_C] > -np.inf
            listed_V[listed] = True
            fits_C[found.listed :] &= ~listed_V[extra_rows]  # not twice
            listed_V[listed] = False
            rows_C = found.rows_C[fits_C]
            score_HC = self.scorer(found.signals_CF[fits_C], backbone_HC[:, fits_C], lead_H)
            best = self._best(rows_C, fresh_V[rows_C], score_HC, size, kept)
            ranked.append(RankedEvent(*best, query_BHP[b, 0], lead_H, moment, self.fresh))
        return ranked

    def score(
        self, titles: Sequence[Sequence[str]], viewers: Sequence[Viewer], ranked: Sequence[RankedEvent]
    ) -> list[NDArray[np.float32]]:
        """For each viewer, what some titles would have scored in `ranked`, which this version made: [H, titles]."""
        histories = [self._history(viewer) for viewer in viewers]
        hidden_BD = self.sequence.now(histories, [one.moment for one in ranked])
        query_BHP, text_BV = self._queries(hidden_BD), candidates.text_scores(self.snapshot, histories)
        suited_MV, scores = self.snapshot.scratch.suited_MV, []
        for b, (viewer, history, one) in enumerate(zip(viewers, histories, ranked, strict=True)):
            query = self._gather(viewer, history, one.moment)
            rows_C = self.stream_state.catalog.find(titles[b])
            backbone_HC = self._backbone(query_BHP[b], rows_C)
            suited_MV[table.TEXT], suited_MV[table.BACKBONE, rows_C] = text_BV[b], backbone_HC[0]
            signals_CF = candidates.read(self.snapshot, query, history, rows_C, float(one.lead[0]))
            scores.append(self.scorer(signals_CF, backbone_HC, one.lead))
        return scores

    def _best(
        self,
        rows_C: NDArray[np.int64],
        fresh_C: NDArray[np.bool_],
        score_HC: NDArray[np.float32],
        size: int,
        kept: int,
    ) -> tuple[dict[int, list[str]], dict[int, NDArray[np.float32]]]:
        """The titles chosen and their scores, by horizon."""
        ids, titles, scores = self.stream_state.catalog.ids, {}, {}
        for place, delay in enumerate(self.horizons):
            best = choose(score_HC[place], fresh_C, size, kept)
            titles[delay] = [ids[row] for row in rows_C[best].tolist()]
            scores[delay] = score_HC[place][best]
        return titles, scores

    def _history(self, viewer: Viewer) -> History:
        rows_L = self.stream_state.catalog.find(viewer.titles)
        times, actions = np.array(viewer.times, np.int64), np.array(viewer.actions, np.int64)
        return History(viewer.user, rows_L, times, actions)

    def _gather(self, viewer: Viewer, history: History, moment: int) -> Query:
        query = self.stream_state.query(history, moment)._replace(events=viewer.events)
        gather(query, self.snapshot.titles, self.stream_state.counters, self.snapshot.scratch)
        return query

    def _blocked(self, viewer: Viewer) -> NDArray[np.int32]:
        """Rows to leave out: what the server saw the viewer see, and what the learner did longer ago."""
        if viewer.seen is None:
            return np.zeros(0, np.int32)
        rows = self.stream_state.catalog.find(viewer.seen).astype(np.int32)
        return np.concatenate([rows, self.stream_state.user_store.seen_by(viewer.user)])

    def _backbone(self, query_HP: NDArray[np.float32], rows_C: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits of some titles for every horizon: [H, C]."""
        logit_HC: NDArray[np.float32] = query_HP @ self.sequence.e_VP.numpy()[rows_C].T
        return logit_HC

    @torch.no_grad()
    def _queries(self, hidden_BD: torch.Tensor) -> NDArray[np.float32]:
        """What titles are multiplied with: [B, H, P]."""
        served, many = self.sequence.served, len(self.horizons)
        place_N = torch.arange(many).repeat(len(hidden_BD))
        query_NP = served.query(hidden_BD.repeat_interleave(many, 0), place_N) * served.horizon_head.scale
        query_BHP: NDArray[np.float32] = query_NP.view(len(hidden_BD), many, -1).numpy()
        return query_BHP

    def _look(self, rows: NDArray[np.int64] | None = None) -> None:
        """See the catalogue as it is now; only these rows are encoded, where given."""
        self.sequence.refresh(self.stream_state.catalog, rows)
        self.snapshot: CatalogSnapshot = candidates.view(self.stream_state)
        catalog = self.stream_state.catalog
        cold_M = np.flatnonzero(self.snapshot.titles.candidate_V & (catalog.count_V[: len(catalog)] == 0))
        self.fresh_F = cold_M[np.argsort(-catalog.born_V[cold_M], kind="stable")[:FRESH]]
        self.fresh = frozenset(catalog.ids[row] for row in self.fresh_F.tolist())


@njit(cache=True)
def choose(score_C: NDArray[np.float32], fresh_C: NDArray[np.bool_], size: int, kept: int) -> NDArray[np.int64]:
    """Places of the `size` best, best first, of which at least `kept` are fresh where there are so many.

    A title without events loses against hundreds that have proved themselves, and would never be seen: it competes with
    its like for the last places of a list.
    """
    order_C = np.argsort(-score_C, kind="mergesort")
    sure = min(max(size - kept, 0), order_C.size)
    waiting = 0  # fresh ones among the rest that have a place
    for c in order_C[sure:]:
        waiting += fresh_C[c]
    waiting = min(waiting, kept)
    others = min(size, order_C.size) - sure - waiting  # places left for the best of the rest
    chosen_C, n = np.empty(min(size, order_C.size), np.int64), 0
    for place, c in enumerate(order_C):
        if place >= sure and fresh_C[c] and waiting:
            waiting -= 1
        elif place >= sure and others:
            others -= 1
        elif place >= sure:
            continue
        chosen_C[n] = c
        n += 1
    return chosen_C[:n]


class TitleEncoder:
    """A version's title tower alone: where a new title lies among its query vectors."""

    def __init__(self, network: Network) -> None:
        self.network = network

    @torch.no_grad()
    def __call__(self, semantic_S: NDArray[np.float32]) -> NDArray[np.float32]:
        """e_P of a title without an event, from its text; zero entries where it has none."""
        tower_1D = self.network.title_vectors(torch.tensor(semantic_S)[None], None, torch.zeros(1))
        e_P: NDArray[np.float32] = self.network.candidates(tower_1D)[0].numpy()
        return e_P


def _moment(history: History, now: int) -> int:
    """A question is never asked before the last thing known: one clock ahead must not turn time back."""
    return max(now, int(history.times_L[-1])) if len(history.times_L) else now


def warm_up(settings: LearnerSettings) -> None:
    """Have everything compiled that serving needs: the first time on a machine that takes half a minute."""
    stream_state = StreamState(settings.memory)
    text_S = np.ones(settings.memory.d_text, np.float32)
    stream_state.launch([TitleMetadata(f"{n}", text_S, ["any"], 2000, 0, False) for n in range(3)])
    pipeline = new_pipeline(settings)
    pipeline.ranker.remember(pipeline.ranker.signals_NKF[0], pipeline.ranker.log_share_NK[0])
    pipeline.ranker.learn()  # or else its network would not be asked
    recommender = Recommender(stream_state, pipeline)
    viewer = Viewer("any", ["0"], [0], [next(iter(ACTIONS.values())).code], (), 1)
    ranked = recommender.recommend([viewer], 1)
    recommender.score([["1"]], [viewer], ranked)


def _written(network: NetworkSettings) -> dict[str, Any]:
    """The settings as a manifest holds them, tuples as lists."""
    written: dict[str, Any] = json.loads(json.dumps(asdict(network)))
    return written
