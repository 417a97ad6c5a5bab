"""A published version at work: ranks all titles for viewers, and a single new title for many viewers.

It is made from a checkpoint's weights, counters and ranker, never learns, and takes titles that launched after the
version was written: a new title is scored from its text at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from model import checkpoint, lists, signals
from model.actions import ACTIONS
from model.contender import Contender
from model.gather import gather
from model.learner import LearnerSettings, new_contender
from model.lists import View
from model.memory import Launched, Memory, Past
from model.network import Network, NetworkSettings
from model.sequence import SequenceModel
from model.signals import COLUMN, Asked

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
class Ranked:
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
        """The version at a checkpoint's URL. Raises CheckpointError, also where its network is another one."""
        state, manifest = checkpoint.load(url, ("memory", "served"))
        network = asdict(settings.sequence.network)
        made = manifest.get("settings", {}).get("sequence", {}).get("network", network)
        made = {**asdict(NetworkSettings()), **made}  # with what later settings do by default
        if {**made, "horizons": tuple(made["horizons"])} != network:
            raise checkpoint.CheckpointError(
                f"The checkpoint at {url} holds another network than the settings name: "
                "give `publish` the model and the horizons that `learn` has."
            )
        return cls.from_state(state, settings)

    def add(self, titles: Sequence[Launched]) -> None:
        """Take in titles that launched, changed or were withdrawn since the version was written."""
        self.memory.launch(titles)
        if titles:
            self._look(self.memory.catalogue.find(dict.fromkeys(title.title for title in titles)))

    def forget_user(self, user: str) -> None:
        """Drop what the version keeps of a user: others' lists are made without it."""
        self.memory.audience.forget_user(user)

    def known(self, title: str) -> bool:
        """Whether the title is a candidate."""
        row = self.memory.catalogue.rows.get(title)
        return row is not None and bool(self.on.titles.candidate_V[row])

    def room(self) -> int:
        """How many titles may still come."""
        return max(0, self.memory.settings.most_titles - len(self.memory.catalogue.rows))

    def encoder(self) -> "TitleEncoder":
        """This version's view of new titles, without the rest of it."""
        return TitleEncoder(self.sequence.served)

    def recommend(self, viewers: Sequence[Viewer], now: int, size: int = 100, kept: int = 0) -> list[Ranked]:
        """Each viewer's `size` best titles for every horizon, as of `now` ms or of their last event, if later; `kept`
        places go to the best of the fresh titles (see `choose`)."""
        pasts = [self._past(viewer) for viewer in viewers]
        moments = [_moment(past, now) for past in pasts]
        hidden_BD = self.sequence.now(pasts, moments)
        backbone_BHV = self._backbone(hidden_BD)
        query_BP = self._queries(hidden_BD)
        text_BV = lists.text_scores(self.on, pasts)
        static_V = lists.static_scores(self.on, self.contender.ranker)
        most, also = max(self.contender.shortlist, size), self.fresh_F if kept else self.fresh_F[:0]
        listed_V, fresh_V = np.zeros((2, len(static_V)), bool)
        fresh_V[also] = True
        ranked = []
        for viewer, past, moment, backbone_HV, query_P, text_V in zip(
            viewers, pasts, moments, backbone_BHV, query_BP, text_BV, strict=True
        ):
            asked = self._gather(viewer, past, moment)
            scores = text_V, backbone_HV[0], static_V
            found = lists.find(self.on, self.contender.ranker, asked, past, *scores, self._blocked(viewer), most, also)
            listed = found.rows_C[: found.listed]
            lead_H = np.array([lists.lead(backbone_V, listed) for backbone_V in backbone_HV], np.float32)
            fits_C = found.score_V[found.rows_C] > -np.inf
            listed_V[listed] = True
            fits_C[found.listed :] &= ~listed_V[also]  # not twice
            listed_V[listed] = False
            rows_C = found.rows_C[fits_C]
            score_HC = self._by_horizon(found.signals_CF[fits_C], backbone_HV[:, rows_C], lead_H)
            best = self._best(rows_C, fresh_V[rows_C], score_HC, size, kept)
            ranked.append(Ranked(*best, query_P, lead_H, moment, self.fresh))
        return ranked

    def score(
        self, titles: Sequence[Sequence[str]], viewers: Sequence[Viewer], ranked: Sequence[Ranked]
    ) -> list[NDArray[np.float32]]:
        """For each viewer, what some titles would have scored in `ranked`, which this version made: [H, titles]."""
        pasts = [self._past(viewer) for viewer in viewers]
        hidden_BD = self.sequence.now(pasts, [one.moment for one in ranked])
        backbone_BHV = self._backbone(hidden_BD)
        text_BV = lists.text_scores(self.on, pasts)
        scores = []
        for b, (viewer, past, one) in enumerate(zip(viewers, pasts, ranked, strict=True)):
            asked = self._gather(viewer, past, one.moment)
            self.on.scratch.moving_MV[signals.TEXT] = text_BV[b]
            self.on.scratch.moving_MV[signals.BACKBONE] = backbone_BHV[b, 0]
            rows_C = self.memory.catalogue.find(titles[b])
            signals_CF = lists.read(self.on, asked, past, rows_C, float(one.lead[0]))
            scores.append(self._by_horizon(signals_CF, backbone_BHV[b][:, rows_C], one.lead))
        return scores

    def _by_horizon(
        self, signals_CF: NDArray[np.float32], backbone_HC: NDArray[np.float32], lead_H: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The ranker's scores [H, C]: the same signals, with each horizon's backbone and delay in their columns."""
        signals_HCF = np.repeat(signals_CF[None], len(self.horizons), 0)
        signals_HCF[..., COLUMN["backbone"]] = backbone_HC
        signals_HCF[..., COLUMN["backbone lead"]] = backbone_HC - lead_H[:, None]
        signals_HCF[..., COLUMN["delay"]] = np.log1p(np.array(self.horizons))[:, None]
        return self.contender.ranker.score(signals_HCF)

    def _best(
        self,
        rows_C: NDArray[np.int64],
        fresh_C: NDArray[np.bool_],
        score_HC: NDArray[np.float32],
        size: int,
        kept: int,
    ) -> tuple[dict[int, list[str]], dict[int, NDArray[np.float32]]]:
        """The titles chosen and their scores, by horizon."""
        ids, titles, scores = self.memory.catalogue.ids, {}, {}
        for place, delay in enumerate(self.horizons):
            best = choose(score_HC[place], fresh_C, size, kept)
            titles[delay] = [ids[row] for row in rows_C[best].tolist()]
            scores[delay] = score_HC[place][best]
        return titles, scores

    def _past(self, viewer: Viewer) -> Past:
        rows_L = self.memory.catalogue.find(viewer.titles)
        times, actions = np.array(viewer.times, np.int64), np.array(viewer.actions, np.int64)
        return Past(viewer.user, rows_L, times, actions)

    def _gather(self, viewer: Viewer, past: Past, moment: int) -> Asked:
        asked = self.memory.asked(past, moment)._replace(events=viewer.events)
        gather(asked, self.on.titles, self.memory.counters, self.on.scratch)
        return asked

    def _blocked(self, viewer: Viewer) -> NDArray[np.int32]:
        """Rows to leave out: what the server saw the viewer see, and what the learner did longer ago."""
        if viewer.seen is None:
            return np.zeros(0, np.int32)
        rows = self.memory.catalogue.find(viewer.seen).astype(np.int32)
        return np.concatenate([rows, self.memory.audience.seen_by(viewer.user)])

    def _backbone(self, hidden_BD: torch.Tensor) -> NDArray[np.float32]:
        """Logits of all titles for every horizon: [B, H, V]."""
        return np.stack([self.sequence.scores(hidden_BD, place) for place in range(len(self.horizons))], 1)

    @torch.no_grad()
    def _queries(self, hidden_BD: torch.Tensor) -> NDArray[np.float32]:
        served = self.sequence.served
        first = torch.zeros(len(hidden_BD), dtype=torch.int64)
        query_BP: NDArray[np.float32] = (served.query(hidden_BD, first) * served.decoder.scale).numpy()
        return query_BP

    def _look(self, rows: NDArray[np.int64] | None = None) -> None:
        """See the catalogue as it is now; only these rows are encoded, where given."""
        self.sequence.refresh(self.memory.catalogue, rows)
        self.on: View = lists.view(self.memory)
        catalogue = self.memory.catalogue
        cold_M = np.flatnonzero(self.on.titles.candidate_V & (catalogue.count_V[: len(catalogue)] == 0))
        self.fresh_F = cold_M[np.argsort(-catalogue.born_V[cold_M], kind="stable")[:FRESH]]
        self.fresh = frozenset(catalogue.ids[row] for row in self.fresh_F.tolist())


def choose(score_C: NDArray[np.float32], fresh_C: NDArray[np.bool_], size: int, kept: int) -> NDArray[np.int64]:
    """Places of the `size` best, best first, of which at least `kept` are fresh where there are so many.

    A title without events loses against hundreds that have proved themselves, and would never be seen: it competes with
    its like for the last places of a list.
    """
    order_C = np.argsort(-score_C, kind="stable")
    rest = np.arange(min(max(size - kept, 0), len(order_C)), len(order_C))
    chosen_C = np.arange(len(order_C)) < len(order_C) - len(rest)
    chosen_C[rest[fresh_C[order_C[rest]]][:kept]] = True
    chosen_C[np.flatnonzero(~chosen_C)[: size - np.count_nonzero(chosen_C)]] = True
    chosen: NDArray[np.int64] = order_C[chosen_C]
    return chosen


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


def _moment(past: Past, now: int) -> int:
    """A question is never asked before the last thing known: one clock ahead must not turn time back."""
    return max(now, int(past.times_L[-1])) if len(past.times_L) else now


def warm_up(settings: LearnerSettings) -> None:
    """Have everything compiled that serving needs: the first time on a machine that takes half a minute."""
    memory = Memory(settings.memory)
    text_S = np.ones(settings.memory.d_text, np.float32)
    memory.launch([Launched(f"{n}", text_S, ["any"], 2000, 0, False) for n in range(3)])
    recommender = Recommender(memory, new_contender(settings))
    viewer = Viewer("any", ["0"], [0], [next(iter(ACTIONS.values())).code], (), 1)
    ranked = recommender.recommend([viewer], 1)
    recommender.score([["1"]], [viewer], ranked)
