"""Orders candidates: a linear score shortlists all titles, a small network ranks the few hundred that remain.

Both learn online from the same buffer: signals as they were before an event (or `delay` events before it), of the title
that came and of a sample of those that could have come. The softmax over a sample of the candidates is corrected by
log(candidates / sampled), so that it estimates the softmax over all of them. Each has its own sample: the shortlist
learns against hard candidates and against uniform ones, the network against hard ones only, as it will meet them.

How many steps are taken follows the records alone, so that it is the same however events are cut into micro-batches.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.signals.table import DENSE, SIGNALS


@dataclass(frozen=True)
class RankerSettings:
    """hard, easy: sampled candidates a record, from the shortlist and from all · hidden: widths · buffer: records
    kept · batch: records a step · visits: how often a record is met, on the average · steps: a micro-batch at the
    most · rate: of AdamW · average: weight of the past in the served weights."""

    hard: int = 32
    easy: int = 16
    hidden: tuple[int, int] = (96, 48)
    buffer: int = 12_288
    batch: int = 192
    visits: float = 7.0
    steps: int = 8
    rate: float = 2e-3
    average: float = 0.98


class Ranker:
    """`weights_D` is the shortlist's linear score, `network` the served (averaged) ranker: [.., F] to [..]."""

    furthest = 6.0  # spreads from the mean beyond which the network sees no difference

    def __init__(self, settings: RankerSettings, seed: int = 0, without: tuple[str, ...] = ()) -> None:
        self.settings, self.columns = settings, len(SIGNALS)
        self.hidden_F = torch.tensor([name not in without for name in SIGNALS])
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.live, self.network = _network(self.columns, settings), _network(self.columns, settings)
        self.network.load_state_dict(self.live.state_dict())
        self.linear_D = nn.Parameter(_prior())
        self.optimiser = torch.optim.AdamW(
            [
                {"params": list(self.live.parameters()), "weight_decay": 1e-3},
                {"params": [self.linear_D], "lr": settings.rate * 2, "weight_decay": 0.0},
            ],
            lr=settings.rate,
        )
        self.generator = torch.Generator().manual_seed(seed)
        width = 1 + settings.hard + settings.easy
        self.signals_NKF = np.zeros((settings.buffer, width, self.columns), np.float16)
        self.log_share_NK = np.zeros((settings.buffer, width), np.float32)
        self.written = 0
        self.mean_F, self.square_F = torch.zeros(self.columns), torch.ones(self.columns)
        self.steps = 0
        self._folded: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    @property
    def weights_D(self) -> NDArray[np.float32]:
        """The shortlist's weights."""
        weights_D: NDArray[np.float32] = self.linear_D.detach().numpy()
        return weights_D

    @torch.no_grad()
    def score(self, signals_CF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of candidates, higher is better; before the first step it is the linear score."""
        x_CF = torch.from_numpy(signals_CF)
        score_C = x_CF[..., : len(DENSE)] @ self.linear_D
        if self.steps > 0:
            low_F, high_F, weight_FW, bias_W = self.folded()
            first_CW = torch.addmm(bias_W, x_CF.clamp(low_F, high_F), weight_FW)
            score_C = score_C + self.network[1:](first_CW).squeeze(-1)
        scores: NDArray[np.float32] = score_C.numpy()
        return scores

    def folded(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the served network's first layer becomes when it reads signals that are not standardised: the bounds
        that they are clamped to, low_F and high_F, weight_FW and bias_W. It is made once after each learning."""
        if self._folded is None:
            mean_F, spread_F = self.mean_F, self._spread()
            first = self.network[0]
            assert isinstance(first, nn.Linear)
            weight_FW = (first.weight * (self.hidden_F / spread_F)).T.detach().contiguous()
            bias_W = (first.bias - mean_F @ weight_FW).detach()
            self._folded = mean_F - self.furthest * spread_F, mean_F + self.furthest * spread_F, weight_FW, bias_W
        return self._folded

    def remember(self, signals_KF: NDArray[np.float32], log_share_K: NDArray[np.float32]) -> None:
        """Keep one record: row 0 is the title that came; `log_share` is log(population / sampled), -inf for no
        entry."""
        at = self.written % self.settings.buffer
        self.signals_NKF[at], self.log_share_NK[at] = signals_KF, log_share_K
        self.written += 1

    def learn(self) -> float | None:
        """Take the steps that are due over the buffer; the last one's loss in nats, None where none was due."""
        held, loss = min(self.written, self.settings.buffer), None
        for _ in range(self._due() if held else 0):
            newest = min(held, self.settings.batch // 4)  # a quarter is new, the rest uniform over the buffer
            recent_n = (self.written - 1 - torch.arange(newest)) % self.settings.buffer
            older_n = torch.randint(held, (self.settings.batch - newest,), generator=self.generator)
            loss = self._step(torch.cat([recent_n, older_n]).numpy())
        return loss

    def _due(self) -> int:
        """Steps until each record was met so often, as far as a micro-batch takes them."""
        s = self.settings
        return max(0, int(min(s.steps, s.visits * self.written / s.batch - self.steps)))

    def _step(self, records_n: NDArray[np.int64]) -> float:
        self._folded = None
        x_NKF = torch.from_numpy(self.signals_NKF[records_n]).float()
        share_NK = torch.from_numpy(self.log_share_NK[records_n])
        hard = 1 + self.settings.hard
        self._measure(x_NKF[:, :hard])
        share_NK, inside_N = share_NK.clone(), share_NK[:, 0] == 0
        share_NK[:, 0] = 0
        pick_NK = x_NKF[..., : len(DENSE)] @ self.linear_D + share_NK
        rank_NK = self.live(self._standard(x_NKF[:, :hard])).squeeze(-1) + pick_NK[:, :hard].detach()
        # The network meets shortlists only: taught with targets from outside, it would lift what the shortlist put
        # last.
        rank_N = rank_NK.log_softmax(1)[:, 0] * inside_N.float()
        loss = -(rank_N.sum() / inside_N.sum().clamp_min(1) + pick_NK.log_softmax(1)[:, 0].mean())
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.live.parameters(), 1.0)
        self.optimiser.step()
        self.steps += 1
        keep = min(self.settings.average, 1 - 1 / self.steps)
        with torch.no_grad():
            for served, learned in zip(self.network.parameters(), self.live.parameters(), strict=True):
                served.lerp_(learned, 1 - keep)
        return float(loss.detach())

    def _measure(self, x_NKF: Tensor) -> None:
        pace = max(0.01, 1 / (self.steps + 1))
        self.mean_F.lerp_(x_NKF.mean((0, 1)), pace)
        self.square_F.lerp_(x_NKF.square().mean((0, 1)), pace)

    def _spread(self) -> Tensor:
        return (self.square_F - self.mean_F.square()).clamp_min(1e-4).sqrt()

    def _standard(self, x_CF: Tensor) -> Tensor:
        """Signals in spreads from their mean; those that the network may not see are 0."""
        return ((x_CF - self.mean_F) / self._spread()).clamp(-self.furthest, self.furthest) * self.hidden_F

    def served_state(self) -> dict[str, Any]:
        """What scoring needs."""
        return {
            "network": {k: v.clone() for k, v in self.network.state_dict().items()},
            "linear_D": self.linear_D.detach().clone(),
            "mean_F": self.mean_F.clone(),
            "square_F": self.square_F.clone(),
            "steps": self.steps,
        }

    def training_state(self) -> dict[str, Any]:
        """What else decides the steps that follow."""
        held = min(self.written, self.settings.buffer)
        return {
            "live": {k: v.clone() for k, v in self.live.state_dict().items()},
            "optimiser": copy.deepcopy(self.optimiser.state_dict()),
            "generator": self.generator.get_state(),
            "signals_NKF": self.signals_NKF[:held].copy(),
            "log_share_NK": self.log_share_NK[:held].copy(),
            "written": self.written,
        }

    def load_served(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        with torch.no_grad():
            self.linear_D.copy_(state["linear_D"])
        self.mean_F, self.square_F = state["mean_F"].clone(), state["square_F"].clone()
        self.steps, self._folded = state["steps"], None

    def load_training(self, state: dict[str, Any]) -> None:
        self.live.load_state_dict(state["live"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        held = len(state["log_share_NK"])
        self.signals_NKF[:held], self.log_share_NK[:held] = state["signals_NKF"], state["log_share_NK"]
        self.written = state["written"]


def _network(columns: int, settings: RankerSettings) -> nn.Sequential:
    wide, narrow = settings.hidden
    return nn.Sequential(nn.Linear(columns, wide), nn.SiLU(), nn.Linear(wide, narrow), nn.SiLU(), nn.Linear(narrow, 1))


def _prior() -> Tensor:
    """Sensible weights before anything is learned: recent popularity, what follows, what goes together, text."""
    told = {"popular ever": 0.3, "popular 3": 0.3, "near recent": 0.5, "together recent": 0.5, "alike users": 0.3}
    told |= {"followed recent": 0.3, "text recent": 2.0, "text neighbours": 0.5, "genres": 0.5, "backbone": 0.1}
    told |= {"taken lately": 0.5}
    return torch.tensor([told.get(name, 0.0) for name in DENSE])
