"""The sequence model as the stream uses it: score every title for a user, learn from new events and from replayed ones.

It is the network with what surrounds it while it learns: id rows, optimisers, the averaged weights that are served, and
the replay buffer. Ranking always uses the averaged weights: what is measured is what is published.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.sequence.experience_replay import DatasetProducer
from model.sequence.network import (
    Network,
    NetworkSettings,
    TitleInputs,
    Windows,
    encode_events,
    encode_users,
    title_table,
)
from model.sequence.objective import ObjectiveSettings, StepReport, train_step
from model.sequence.optimizers import Optimisers, OptimSettings, RowwiseAdagrad
from model.state.catalog import Catalog
from model.state.stream_state import History


@dataclass(frozen=True)
class SequenceSettings:
    """steps a micro-batch, each with the new windows and `replayed` old ones from a ring of `windows`."""

    network: NetworkSettings = field(default_factory=NetworkSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    steps: int = 2
    replayed: int = 12
    windows: int = 4096
    shortened: bool = False  # whether replayed windows begin at a random event of their first half


class SequenceModel:
    """`network` learns, `served` holds the averaged weights (the optimiser's own tensors)."""

    def __init__(self, settings: SequenceSettings, seed: int = 0) -> None:
        self.settings = settings
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = Network(settings.network)
        self.served = copy.deepcopy(self.network).requires_grad_(False)
        self.generator = torch.Generator().manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        rows = RowwiseAdagrad(0, settings.network.d_id, settings.optim, self.generator)
        self.optimisers = Optimisers(self.network, rows, settings.optim)
        self.replay = DatasetProducer(settings.windows, settings.network.history)
        self.tower_VD, self.e_VP = torch.zeros(0), torch.zeros(0)
        self._serve()

    def refresh(self, catalog: Catalog, rows: NDArray[np.int64] | None = None) -> None:
        """Encode the catalogue with the served weights: before a micro-batch is scored. With `rows`, only those, which
        must include all that are new."""
        self._grow(catalog.capacity)
        at = slice(None) if rows is None else torch.from_numpy(rows)
        semantic, table, count = self._known(catalog, catalog.count_V[: len(catalog)])
        tower_RD, e_RP = title_table(
            self.served, TitleInputs(semantic[at], table[at], count[at], torch.zeros(0).long())
        )
        if rows is None:
            self.tower_VD, self.e_VP = tower_RD, e_RP
            return
        fresh = len(catalog) - len(self.e_VP)
        self.tower_VD = torch.cat([self.tower_VD, tower_RD.new_zeros(fresh, tower_RD.shape[1])])
        self.e_VP = torch.cat([self.e_VP, e_RP.new_zeros(fresh, e_RP.shape[1])])
        self.tower_VD[at], self.e_VP[at] = tower_RD, e_RP

    @torch.no_grad()
    def scores(self, hidden_ND: Tensor, horizon: int) -> NDArray[np.float32]:
        """Logits of all titles for hidden states: [N, V] float32."""
        place_N = torch.full((len(hidden_ND),), horizon, dtype=torch.int64)
        query_NP = self.served.query(hidden_ND, place_N) * self.served.horizon_head.scale
        return (query_NP @ self.e_VP.T).numpy()

    @torch.no_grad()
    def classes(self, task: str, hidden_ND: Tensor, title_N: NDArray[np.int64]) -> NDArray[np.float32]:
        """How likely a further task's classes are, [N, K]; `title_N` are the rows of the titles that come."""
        logit_NK: Tensor = self.served.head(task)(hidden_ND, self.tower_VD[torch.from_numpy(title_N)])
        return logit_NK.softmax(1).numpy()

    def before_events(
        self, histories: Sequence[History], window_N: NDArray[np.int64], event_N: NDArray[np.int64]
    ) -> Tensor:
        """hidden_ND just before event `event_N` of history `window_N`, as of that event's time."""
        windows, place_N = self._spans(histories, window_N, event_N)
        return encode_events(self.served, self.tower_VD, windows, *place_N)

    def now(self, histories: Sequence[History], now_B: Sequence[int]) -> Tensor:
        """hidden_BD after each history, as of `now_B` ms."""
        limit = self.settings.network.history
        ends = [(history, len(history.rows_L)) for history in histories]
        windows = _windows([_Span(history, max(n - limit, 0), n, (), n > limit) for history, n in ends], limit)
        return encode_users(self.served, self.tower_VD, windows, torch.tensor(now_B, dtype=torch.int64))

    def learn(
        self,
        histories: Sequence[History],
        new: Sequence[Sequence[int]],
        catalog: Catalog,
        count_V: NDArray[np.float32],
        launched_M: NDArray[np.int64],
        frequency_V: NDArray[np.float32],
        replay: float = 1.0,
    ) -> StepReport | None:
        """Train on the histories' new events and on replayed windows, whose number `replay` scales.

        `count_V` is from before these events: counted in, no title would ever be met without an event.
        """
        self._grow(catalog.capacity)
        launched, frequency = torch.from_numpy(launched_M), torch.from_numpy(frequency_V)
        genres = torch.from_numpy(catalog.genres_VG[: len(count_V)])
        titles = TitleInputs(*self._known(catalog, count_V), launched, frequency, genres)
        limit = self.settings.network.history
        fresh = [span for history, events in zip(histories, new, strict=True) for span in _cut(history, events, limit)]
        report = None
        for _ in range(self.settings.steps):
            windows = _windows(fresh + self._replayed(round(self.settings.replayed * replay)), limit)
            report = train_step(
                self.network, self.optimisers, titles, windows, self.settings.objective, self.generator, len(fresh)
            )
        return report

    def keep(self, history: History, many: int) -> None:
        """Put a user's history, new events included, into the replay buffer."""
        self.replay.add(history.user, history.rows_L, history.times_L, history.actions_L, many)

    def erase_user(self, user: str) -> None:
        """Drop what is learned again of a user."""
        self.replay.erase_user(user)

    def evict_titles(self, rows: NDArray[np.int64]) -> None:
        """Clear evicted rows; those that the table has not grown to yet will be drawn when it does."""
        known = rows[rows < len(self.optimisers.rows.table_VE)]
        self.optimisers.rows.reset(torch.from_numpy(known), self.generator)
        self.replay.evict_titles(rows)

    def served_state(self, titles: int) -> dict[str, Any]:
        """What scoring needs."""
        served = {name: value.clone() for name, value in self.served.state_dict().items()}
        return {"served": served, "rows": self.optimisers.rows.table_VE[:titles].clone()}

    def training_state(self, titles: int) -> dict[str, Any]:
        """What else decides the steps that follow."""
        return {
            "squares": self.optimisers.rows.squares_V.clone(),
            "spare": self.optimisers.rows.table_VE[titles:].clone(),  # drawn from the generator already
            "network": {name: value.clone() for name, value in self.network.state_dict().items()},
            "dense": self.optimisers.dense.state_dict(),
            "generator": self.generator.get_state(),
            "rng": self.rng.bit_generator.state,
            "replay": self.replay.state_dict(),
        }

    def load_served(self, state: dict[str, Any]) -> None:
        self.optimisers.rows.table_VE = state["rows"].clone()
        self.optimisers.rows.squares_V = torch.zeros(len(state["rows"]))
        for name in self.optimisers.dense.average:
            self.optimisers.dense.average[name] = state["served"][name].clone()
        self._serve()

    def load_training(self, state: dict[str, Any]) -> None:
        """After `load_served`."""
        self.network.load_state_dict(state["network"])
        self.optimisers.rows.table_VE = torch.cat([self.optimisers.rows.table_VE, state["spare"]])
        self.optimisers.rows.squares_V = state["squares"].clone()
        self.optimisers.dense.load_state_dict(state["dense"])
        self.generator.set_state(state["generator"])
        self.rng.bit_generator.state = state["rng"]
        self.replay.load_state_dict(state["replay"])
        self._serve()

    def _serve(self) -> None:
        for name, parameter in self.served.named_parameters():
            parameter.data = self.optimisers.dense.average[name]

    def _grow(self, capacity: int) -> None:
        if capacity > len(self.optimisers.rows.table_VE):
            self.optimisers.rows.grow(capacity, self.generator)

    def _known(self, catalog: Catalog, count_V: NDArray[np.float32]) -> tuple[Tensor, Tensor, Tensor]:
        n = len(count_V)
        return torch.from_numpy(catalog.semantic_VS[:n]), self.optimisers.rows.table_VE[:n], torch.from_numpy(count_V)

    def _replayed(self, n: int) -> list["_Span"]:
        spans: list[_Span] = []
        buffer = self.replay
        for at in self.replay.sample(n if len(buffer) else 0, self.rng):
            length = int(buffer.length_N[at])
            if not length:  # its user was forgotten
                continue
            rows, actions = buffer.title_NL[at, :length], buffer.action_NL[at, :length]
            history = History("", rows.astype(np.int64), buffer.time_NL[at, :length], actions.astype(np.int64))
            start = int(self.rng.integers(length // 2 + 1)) if self.settings.shortened else 0
            cut = bool(buffer.cut_N[at] or start)  # the first event of a cut window has lost what came before it
            spans.append(_Span(history, start, length, range(start + cut, length), cut))
        return spans

    def _spans(
        self, histories: Sequence[History], window_N: NDArray[np.int64], event_N: NDArray[np.int64]
    ) -> tuple[Windows, tuple[Tensor, Tensor]]:
        """Bounded windows around the asked events, and where in them each lies."""
        limit = self.settings.network.history
        spans: list[_Span] = []
        place = np.zeros((2, len(event_N)), np.int64)
        for w, history in enumerate(histories):
            asked = np.flatnonzero(window_N == w)
            for span in _cut(history, event_N[asked].tolist(), limit):
                inside = asked[(event_N[asked] >= span.events[0]) & (event_N[asked] <= span.events[-1])]
                place[0, inside], place[1, inside] = len(spans), event_N[inside] - span.start
                spans.append(span)
        return _windows(spans, limit), (torch.from_numpy(place[0].copy()), torch.from_numpy(place[1].copy()))


class _Span(NamedTuple):
    """[start, stop) of a history, the events in it that count, and whether there were events before it."""

    history: History
    start: int
    stop: int
    events: Sequence[int]
    cut: bool


def _cut(history: History, events: Sequence[int], limit: int) -> list[_Span]:
    """Windows of at most `limit` events: the history itself where it fits, else each ending with asked events and at
    least half of it what came before."""
    spans: list[_Span] = []
    rest = sorted(events)
    if rest and rest[-1] < limit:
        return [_Span(history, 0, rest[-1] + 1, rest, False)]
    while rest:
        part = [event for event in rest if event < rest[0] + limit // 2]
        stop = part[-1] + 1
        start = max(stop - limit, 0)
        spans.append(_Span(history, start, stop, part, start > 0))
        rest = rest[len(part) :]
    return spans


def _windows(spans: Sequence[_Span], limit: int) -> Windows:
    """Spans, of at most `limit` events, as left-aligned arrays; the weight is 1 on events that count."""
    lengths = [span.stop - span.start for span in spans]
    assert max(lengths, default=0) <= limit
    shape = len(spans), max(lengths, default=0)
    title, action = np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
    time, weight = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    for b, (span, n) in enumerate(zip(spans, lengths, strict=True)):
        part = slice(span.start, span.stop)
        title[b, :n], time[b, :n] = span.history.rows_L[part], span.history.times_L[part]
        action[b, :n] = span.history.actions_L[part]
        weight[b, [event - span.start for event in span.events]] = 1
    arrays = tuple(torch.from_numpy(array) for array in (title, action, time, weight))
    length_B, cut_B = torch.tensor(lengths, dtype=torch.int64), torch.tensor([span.cut for span in spans])
    return Windows(arrays[0], arrays[1], arrays[2], arrays[3], length_B, cut_B.bool())
