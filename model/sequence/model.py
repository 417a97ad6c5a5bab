"""The sequence model for online learning: scores all titles for a user, learns from new and replayed events.

It combines the network with its training state: id embeddings, optimizers, averaged weights and the replay buffer.
Ranking always uses the averaged weights, so evaluation measures the weights that are published.

B histories · L events of a window · N rows of a flat batch · V titles · M a subset of titles · C launched titles
H horizons · D width of the backbone · P width of the scoring space · K classes of a task · G genres of a title
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.sequence.experience_replay import ReplayBuffer
from model.sequence.network import Network, TitleInputs, Windows, encode_events, encode_titles, encode_users
from model.sequence.objective import StepReport, train_step
from model.sequence.optimizers import Optimizers, RowwiseAdagrad
from model.sequence.windows import Window, split, stack
from model.settings import SequenceSettings
from model.signals.query_scores import AllScores, BatchScores, CellScores, QueryScores
from model.state.catalog import Catalog
from model.state.stream_state import History
from model.state.title_cells import TitleCells

TEXT_LAYERS: Final = "tower.text"  # part of the names of all weights that read text embeddings


class SequenceModel:
    """`network` learns; `served` holds the averaged weights, which are the optimizer's own tensors."""

    def __init__(self, settings: SequenceSettings, seed: int = 0) -> None:
        self.settings, self.seed = settings, seed
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = Network(settings.network)
        self.served = copy.deepcopy(self.network).requires_grad_(False)
        self.generator = torch.Generator().manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        rows = RowwiseAdagrad(0, settings.network.d_id, settings.optim, self.generator)
        self.optimizers = Optimizers(self.network, rows, settings.optim)
        self.replay_buffer = ReplayBuffer(settings.replay_capacity, settings.network.max_history)
        self._tower_VD, self._e_VP, self.titles = torch.zeros(0), torch.zeros(0), 0  # the tables have spare rows
        self.cells = TitleCells(seed)  # of e_VP
        self._link_served_weights()

    def refresh(self, catalog: Catalog, rows: NDArray[np.int64] | None = None) -> None:
        """Encode titles with the averaged weights. With `rows`, only these, which must include all new titles."""
        self._grow(catalog.capacity)
        if rows is None or not len(self.e_VP):
            rows = np.arange(len(catalog))
        at = torch.from_numpy(rows)
        semantic_VE, id_VI, count_V = self._title_inputs(catalog, catalog.count_V[: len(catalog)])
        inputs = TitleInputs(semantic_VE[at], id_VI[at], count_V[at], torch.zeros(0).long())
        tower_MD, e_MP = encode_titles(self.served, inputs)
        self._tower_VD, self._e_VP = (
            _with_rows(table, catalog.capacity, value_MX)
            for table, value_MX in ((self._tower_VD, tower_MD), (self._e_VP, e_MP))
        )
        self.titles = len(catalog)
        self._tower_VD[at], self._e_VP[at] = tower_MD, e_MP
        self.cells.update(self.e_VP.numpy(), rows)

    @property
    def tower_VD(self) -> Tensor:
        """The title tower's vectors, as of each title's last refresh."""
        return self._tower_VD[: self.titles]

    @property
    def e_VP(self) -> Tensor:
        """The title vectors in the scoring space, as of each title's last refresh."""
        return self._e_VP[: self.titles]

    @torch.no_grad()
    def queries(self, hidden_ND: Tensor, horizon: int) -> Tensor:
        """Scaled query vectors, [N, P]; their product with a title's vector is a logit.

        `horizon` is an index into the settings' horizons.
        """
        horizon_N = torch.full((len(hidden_ND),), horizon, dtype=torch.int64)
        query_NP: Tensor = self.served.query(hidden_ND, horizon_N) * self.served.horizon_head.scale
        return query_NP

    def scores(self, hidden_ND: Tensor, horizon: int) -> NDArray[np.float32]:
        """Logits of all titles for hidden states, [N, V] float32."""
        return (self.queries(hidden_ND, horizon) @ self.e_VP.T).numpy()

    def scores_of(self, query_NP: Tensor) -> BatchScores:
        """The logits of these queries, for all titles as they are encoded now."""
        e_VP, cells = self.e_VP, self.cells

        def compute(part: slice) -> Sequence[QueryScores]:
            if not cells.is_ready:
                return [AllScores(score_V) for score_V in (query_NP[part] @ e_VP.T).numpy()]
            queries = query_NP[part].numpy()
            return [
                CellScores(query_P, cells, proposed_M)
                for query_P, proposed_M in zip(queries, cells.proposed(queries), strict=True)
            ]

        return BatchScores(len(query_NP), compute)

    @torch.no_grad()
    def task_probabilities(self, task: str, hidden_ND: Tensor, title_N: NDArray[np.int64]) -> NDArray[np.float32]:
        """Class probabilities of an auxiliary task, [N, K]; `title_N` are the catalog rows of the next titles."""
        logit_NK: Tensor = self.served.task_head(task)(hidden_ND, self.tower_VD[torch.from_numpy(title_N)])
        return logit_NK.softmax(1).numpy()

    def hidden_before_events(
        self, histories: Sequence[History], history_N: NDArray[np.int64], event_N: NDArray[np.int64]
    ) -> Tensor:
        """hidden_ND before event `event_N` of history `history_N`, with that event's time as query time."""
        windows, window_N, token_N = self._windows_around(histories, history_N, event_N)
        return encode_events(self.served, self.tower_VD, windows, window_N, token_N)

    def hidden_now(self, histories: Sequence[History], now_B: Sequence[int]) -> Tensor:
        """hidden_BD after the last event of each history, with query time `now_B` (ms)."""
        limit = self.settings.network.max_history
        lengths = [(history, len(history.rows_L)) for history in histories]
        windows = stack([Window(history, max(n - limit, 0), n, (), n > limit) for history, n in lengths], limit)
        return encode_users(self.served, self.tower_VD, windows, torch.tensor(now_B, dtype=torch.int64))

    def learn(
        self,
        histories: Sequence[History],
        new: Sequence[Sequence[int]],
        catalog: Catalog,
        count_V: NDArray[np.float32],
        launched_C: NDArray[np.int64],
        frequency_V: NDArray[np.float32],
        replay_share: float = 1.0,
    ) -> StepReport | None:
        """Train on the histories' new events and on replayed windows, whose number `replay_share` scales.

        `new` are the indices of each history's new events. `count_V` must be from before these events: with them
        included, the network would never train on a title without an event. Returns the last step's report.
        """
        self._grow(catalog.capacity)
        launched, frequency = torch.from_numpy(launched_C), torch.from_numpy(frequency_V)
        genres = torch.from_numpy(catalog.genres_VG[: len(count_V)])
        titles = TitleInputs(*self._title_inputs(catalog, count_V), launched, frequency, genres)
        limit = self.settings.network.max_history
        new_windows = [w for history, events in zip(histories, new, strict=True) for w in split(history, events, limit)]
        report = None
        for _ in range(self.settings.steps):
            replayed = self._sample_replay(round(self.settings.replay_windows * replay_share))
            windows, objective = stack(new_windows + replayed, limit), self.settings.objective
            report = train_step(self.network, self.optimizers, titles, windows, objective, self.generator)
        return report

    def add_to_replay(self, history: History, event_count: int) -> None:
        """Store a user's history, new events included, in the replay buffer; `event_count` is the user's total."""
        self.replay_buffer.add(history.user, history.rows_L, history.times_L, history.actions_L, event_count)

    def erase_user(self, user: str) -> None:
        """Drop the user's windows from the replay buffer."""
        self.replay_buffer.erase_user(user)

    def evict_titles(self, rows: NDArray[np.int64]) -> None:
        """Reset the id embeddings of evicted rows; rows beyond the table are initialized when it grows."""
        existing = rows[rows < len(self.optimizers.rows.table_VI)]
        self.optimizers.rows.reset(torch.from_numpy(existing), self.generator)
        self.replay_buffer.evict_titles(rows)

    def restart_text(self, d_text: int) -> None:
        """Start the layers that read text embeddings again, with embeddings of width `d_text`. All else is kept."""
        network = replace(self.settings.network, d_text=d_text)
        fresh = SequenceModel(replace(self.settings, network=network), self.seed)
        served, training = self.served_state(0), self.training_state(0)
        fresh_served, fresh_training = fresh.served_state(0), fresh.training_state(0)
        text = _with_text(served["served"], fresh_served["served"])
        fresh.load_served({**served, "served": text, "cells": fresh_served["cells"]})
        parts = {part: _with_text(training[part], fresh_training[part]) for part in ("network", "dense")}
        fresh.load_training({**training, **parts})
        vars(self).update(vars(fresh))

    def is_finite(self) -> bool:
        """Whether all weights that a score depends on are finite."""
        values = *self.served.parameters(), self.optimizers.rows.table_VI
        return all(bool(torch.isfinite(value).all()) for value in values)

    def served_state(self, titles: int) -> dict[str, Any]:
        """The part of the state that scoring needs."""
        served = {name: value.clone() for name, value in self.served.state_dict().items()}
        vectors = {"tower_VD": self.tower_VD[:titles].clone(), "e_VP": self.e_VP[:titles].clone()}
        rows, cells = self.optimizers.rows.table_VI[:titles].clone(), self.cells.state_dict(titles)
        return {"served": served, "rows": rows, "cells": cells, **vectors}

    def training_state(self, titles: int) -> dict[str, Any]:
        """The part of the state that only training needs."""
        return {
            "squares": self.optimizers.rows.squares_V.clone(),
            "spare_rows": self.optimizers.rows.table_VI[titles:].clone(),  # initialized, not yet in use
            "network": {name: value.clone() for name, value in self.network.state_dict().items()},
            "dense": self.optimizers.dense.state_dict(),
            "generator": self.generator.get_state(),
            "rng": self.rng.bit_generator.state,
            "replay_buffer": self.replay_buffer.state_dict(),
        }

    def load_served(self, state: dict[str, Any]) -> None:
        """Restore the state that `served_state` returned."""
        self.optimizers.rows.table_VI = state["rows"].clone()
        self.optimizers.rows.squares_V = torch.zeros(len(state["rows"]))
        self._tower_VD, self._e_VP = state["tower_VD"].clone(), state["e_VP"].clone()
        self.titles = len(self._e_VP)
        self.cells.load_state_dict(state["cells"], self._e_VP.numpy())
        for name in self.optimizers.dense.average:
            self.optimizers.dense.average[name] = state["served"][name].clone()
        self._link_served_weights()

    def load_training(self, state: dict[str, Any]) -> None:
        """Restore the state that `training_state` returned; call it after `load_served`."""
        self.network.load_state_dict(state["network"])
        self.optimizers.rows.table_VI = torch.cat([self.optimizers.rows.table_VI, state["spare_rows"]])
        self.optimizers.rows.squares_V = state["squares"].clone()
        self.optimizers.dense.load_state_dict(state["dense"])
        self.generator.set_state(state["generator"])
        self.rng.bit_generator.state = state["rng"]
        self.replay_buffer.load_state_dict(state["replay_buffer"])
        self._link_served_weights()

    def _link_served_weights(self) -> None:
        for name, parameter in self.served.named_parameters():
            parameter.data = self.optimizers.dense.average[name]

    def _grow(self, capacity: int) -> None:
        if capacity > len(self.optimizers.rows.table_VI):
            self.optimizers.rows.grow(capacity, self.generator)

    def _title_inputs(self, catalog: Catalog, count_V: NDArray[np.float32]) -> tuple[Tensor, Tensor, Tensor]:
        """(semantic_VE, id_VI, count_V) as tensors that share the memory of their sources."""
        n = len(count_V)
        return torch.from_numpy(catalog.semantic_VE[:n]), self.optimizers.rows.table_VI[:n], torch.from_numpy(count_V)

    def _sample_replay(self, n: int) -> list["Window"]:
        windows: list[Window] = []
        buffer = self.replay_buffer
        for at in self.replay_buffer.sample(n if len(buffer) else 0, self.rng):
            length = int(buffer.length_N[at])
            if not length:  # the user was erased
                continue
            rows, actions = buffer.title_NL[at, :length], buffer.action_NL[at, :length]
            history = History("", rows.astype(np.int64), buffer.time_NL[at, :length], actions.astype(np.int64))
            # The first event of a truncated window is no target: the events before it are missing.
            truncated = bool(buffer.truncated_N[at])
            windows.append(Window(history, 0, length, range(int(truncated), length), truncated))
        return windows

    def _windows_around(
        self, histories: Sequence[History], history_N: NDArray[np.int64], event_N: NDArray[np.int64]
    ) -> tuple[Windows, Tensor, Tensor]:
        """(windows, window_N, token_N): windows that hold the given events, and the position of each event in them."""
        limit = self.settings.network.max_history
        windows: list[Window] = []
        window_N, token_N = np.zeros(len(event_N), np.int64), np.zeros(len(event_N), np.int64)
        for h, history in enumerate(histories):
            of_history = np.flatnonzero(history_N == h)
            for window in split(history, event_N[of_history].tolist(), limit):
                events = event_N[of_history]
                inside = of_history[(events >= window.events[0]) & (events <= window.events[-1])]
                window_N[inside], token_N[inside] = len(windows), event_N[inside] - window.start
                windows.append(window)
        return stack(windows, limit), torch.from_numpy(window_N), torch.from_numpy(token_N)


def _with_rows(table: Tensor, capacity: int, value_MX: Tensor) -> Tensor:
    """The table with at least `capacity` rows of the width of `value_MX`."""
    if len(table) >= capacity:
        return table
    larger = value_MX.new_zeros(capacity, value_MX.shape[1])
    if len(table):
        larger[: len(table)] = table
    return larger


def _with_text(weights: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights`, with those of `fresh` for the layers that read text embeddings."""
    kept = {name: value for name, value in weights.items() if TEXT_LAYERS not in name}
    return kept | {name: value for name, value in fresh.items() if TEXT_LAYERS in name}
