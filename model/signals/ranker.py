"""Ranks candidates: a linear score selects the shortlist from the considered titles, and a small network orders it.

Both learn online from the same buffer of training examples. An example holds the signals of the event's title and of a
sample of the other candidates. The signals are those from before the event; in a delayed example, those from before the
last events. The softmax over the sample is corrected by log(candidates / sampled), so that it estimates the softmax
over all candidates. The two parts use different samples. The linear score learns against candidates from the shortlist
and against uniform ones. The network learns against the shortlist only, because it ranks nothing else.

The number of steps depends only on the number of examples. It is therefore the same for every division of the events
into micro-batches. A step whose loss or gradient is not finite is skipped and counted, and changes no weight.

N examples · C candidates (of an example: the target, then the sampled ones) · F ranker signals, or the DENSE_SIGNALS in
linear_F · W width of the first layer
"""

import copy
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.settings import RankerSettings
from model.signals.table import DENSE_SIGNALS, SIGNALS

# Measured on ml-small-2016, see the research log; what is not named there was not measured.
CLIP_STDS: Final = 6.0  # standardized signals are clipped to this many standard deviations; not measured
NETWORK_WEIGHT_DECAY: Final = 1e-3  # of AdamW; 0.05 changes nothing on the first 24,000 events
LINEAR_RATE_FACTOR: Final = 2  # the linear score's learning rate, relative to the network's; not measured
MAX_GRADIENT_NORM: Final = 1.0  # of the network; not measured
# A quarter of a step's examples are the latest ones, the others are drawn uniformly. A tenth instead of a quarter: MRR
# 0.0683 against 0.0698 on the first 50,000 events.
LATEST_FRACTION: Final = 4
MIN_MOMENT_RATE: Final = 0.01  # per step, of the signals' running mean and variance; not measured
MIN_VARIANCE: Final = 1e-4  # of a signal, so that one that hardly varies is not blown up; not measured
MAX_SIGNAL: Final = float(np.finfo(np.float16).max)  # stored signals are clipped to this magnitude


class Ranker:
    """The linear score of the shortlist, and the network as trained and as served (averaged): [.., F] to [..]."""

    def __init__(self, settings: RankerSettings, seed: int = 0, hidden_signals: tuple[str, ...] = ()) -> None:
        """`hidden_signals` are names of signals that the network does not see."""
        self.settings, self.signal_count = settings, len(SIGNALS)
        self.visible_F = torch.tensor([name not in hidden_signals for name in SIGNALS])
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.training_network = _network(self.signal_count, settings)
            self.served_network = _network(self.signal_count, settings)
        self.served_network.load_state_dict(self.training_network.state_dict())
        self.linear_F = nn.Parameter(_initial_linear_weights())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(self.training_network.parameters()), "weight_decay": NETWORK_WEIGHT_DECAY},
                {"params": [self.linear_F], "lr": settings.learning_rate * LINEAR_RATE_FACTOR, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
        )
        self.generator = torch.Generator().manual_seed(seed)
        size = 1 + settings.hard_negatives + settings.uniform_negatives
        self.signals_NCF = np.zeros((settings.buffer_examples, size, self.signal_count), np.float16)
        self.log_correction_NC = np.zeros((settings.buffer_examples, size), np.float32)
        self.examples_written = 0  # number of the next example; the buffer is a ring
        self.visits_due = 0.0  # visits of examples that are planned and not taken yet
        self.mean_F, self.square_F = torch.zeros(self.signal_count), torch.ones(self.signal_count)
        self.steps = 0  # steps taken
        self.skipped_steps = 0  # steps skipped because the loss or a gradient was not finite
        self._folded: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    @property
    def linear_weights_F(self) -> NDArray[np.float32]:
        """The weights of the linear score."""
        linear_weights_F: NDArray[np.float32] = self.linear_F.detach().numpy()
        return linear_weights_F

    @torch.no_grad()
    def score(self, signals_CF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the candidates' scores, higher is better; before the first step the linear score alone."""
        x_CF = torch.from_numpy(signals_CF)
        score_C = x_CF[..., : len(DENSE_SIGNALS)] @ self.linear_F
        if self.steps > 0:
            low_F, high_F, weight_FW, bias_W = self.folded_layer()
            first_CW = torch.addmm(bias_W, x_CF.clamp(low_F, high_F), weight_FW)
            score_C = score_C + self.served_network[1:](first_CW).squeeze(-1)
        scores: NDArray[np.float32] = score_C.numpy()
        return scores

    def folded_layer(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the served network's first layer with the standardization folded into it.

        The result is low_F and high_F, the range to which raw signals are clipped, then weight_FW and bias_W. It is
        computed once after each step.
        """
        if self._folded is None:
            mean_F, std_F = self.mean_F, self._std()
            first = self.served_network[0]
            assert isinstance(first, nn.Linear)
            weight_FW = (first.weight * (self.visible_F / std_F)).T.detach().contiguous()
            bias_W = (first.bias - mean_F @ weight_FW).detach()
            self._folded = mean_F - CLIP_STDS * std_F, mean_F + CLIP_STDS * std_F, weight_FW, bias_W
        return self._folded

    def add_example(self, signals_CF: NDArray[np.float32], log_correction_C: NDArray[np.float32]) -> None:
        """Add one example to the buffer.

        Row 0 is the event's title. `log_correction_C` is log(candidates / sampled), and -inf for an empty entry. In
        row 0 it is 0 if the title is in the shortlist. Only finite signals are stored: infinities are clipped, NaN
        becomes 0. A negative with an invalid correction becomes an empty entry.
        """
        at = self.examples_written % self.settings.buffer_examples
        clipped_CF = signals_CF.clip(-MAX_SIGNAL, MAX_SIGNAL)
        clipped_CF[np.isnan(clipped_CF)] = 0
        self.signals_NCF[at] = clipped_CF
        self.log_correction_NC[at] = np.where(log_correction_C < np.inf, log_correction_C, -np.inf)
        self.examples_written += 1
        self.visits_due += self.settings.visits_per_example

    def learn(self) -> float | None:
        """Take the training steps that are due; return the last step's loss in nats, None without a step."""
        held, loss = min(self.examples_written, self.settings.buffer_examples), None
        for _ in range(self._steps_due() if held else 0):
            newest = min(held, self.settings.batch_examples // LATEST_FRACTION)
            recent_N = (self.examples_written - 1 - torch.arange(newest)) % self.settings.buffer_examples
            older_N = torch.randint(held, (self.settings.batch_examples - newest,), generator=self.generator)
            loss = self.step(torch.cat([recent_N, older_N]).numpy())
        return loss

    def _steps_due(self) -> int:
        """Return the steps until each example has had its visits on average, at most `max_steps`."""
        return int(min(self.settings.max_steps, self.visits_due / self.settings.batch_examples))

    def step(self, examples_N: NDArray[np.int64]) -> float:
        """Take one training step on these examples of the buffer; return the loss in nats."""
        self._folded = None
        self.visits_due -= self.settings.batch_examples
        x_NCF = torch.from_numpy(self.signals_NCF[examples_N]).float()
        correction_NC = torch.from_numpy(self.log_correction_NC[examples_N])
        hard = 1 + self.settings.hard_negatives
        self._update_moments(x_NCF[:, :hard])
        correction_NC, inside_N = correction_NC.clone(), correction_NC[:, 0] == 0
        correction_NC[:, 0] = 0
        linear_score_NC = x_NCF[..., : len(DENSE_SIGNALS)] @ self.linear_F + correction_NC
        network_score_NC = self.training_network(self._standardize(x_NCF[:, :hard])).squeeze(-1)
        score_NC = network_score_NC + linear_score_NC[:, :hard].detach()
        # The network ranks shortlists only. Trained on targets from outside, it would raise titles with a low linear
        # score.
        log_probability_N = score_NC.log_softmax(1)[:, 0] * inside_N.float()
        loss = -(log_probability_N.sum() / inside_N.sum().clamp_min(1) + linear_score_NC.log_softmax(1)[:, 0].mean())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.training_network.parameters(), MAX_GRADIENT_NORM)
        assert self.linear_F.grad is not None
        if not bool(torch.isfinite(loss.detach() + norm + self.linear_F.grad.sum())):
            self.skipped_steps += 1
            return float(loss.detach())
        self.optimizer.step()
        self.steps += 1
        decay = min(self.settings.ema_decay, 1 - 1 / self.steps)
        with torch.no_grad():
            pairs = zip(self.served_network.parameters(), self.training_network.parameters(), strict=True)
            for served, trained in pairs:
                served.lerp_(trained, 1 - decay)
        return float(loss.detach())

    def _update_moments(self, x_NCF: Tensor) -> None:
        rate = max(MIN_MOMENT_RATE, 1 / (self.steps + 1))
        mean_F, square_F = x_NCF.mean((0, 1)), x_NCF.square().mean((0, 1))
        if bool(torch.isfinite(mean_F + square_F).all()):
            self.mean_F.lerp_(mean_F, rate)
            self.square_F.lerp_(square_F, rate)

    def _std(self) -> Tensor:
        return (self.square_F - self.mean_F.square()).clamp_min(MIN_VARIANCE).sqrt()

    def _standardize(self, x_CF: Tensor) -> Tensor:
        """Standardize and clip the signals; hidden signals become 0."""
        return ((x_CF - self.mean_F) / self._std()).clamp(-CLIP_STDS, CLIP_STDS) * self.visible_F

    def is_finite(self) -> bool:
        """Whether all values that a score depends on are finite."""
        values = *self.served_network.parameters(), self.linear_F, self.mean_F, self.square_F
        return all(bool(torch.isfinite(value).all()) for value in values)

    def served_state(self) -> dict[str, Any]:
        """Return the state that scoring needs."""
        return {
            "signals": list(SIGNALS),
            "served_network": {k: v.clone() for k, v in self.served_network.state_dict().items()},
            "linear_F": self.linear_F.detach().clone(),
            "mean_F": self.mean_F.clone(),
            "square_F": self.square_F.clone(),
            "steps": self.steps,
        }

    def training_state(self) -> dict[str, Any]:
        """Return the state that training needs besides `served_state`."""
        held = min(self.examples_written, self.settings.buffer_examples)
        return {
            "signals": list(SIGNALS),
            "training_network": {k: v.clone() for k, v in self.training_network.state_dict().items()},
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "generator": self.generator.get_state(),
            "signals_NCF": self.signals_NCF[:held].copy(),
            "log_correction_NC": self.log_correction_NC[:held].copy(),
            "negatives": [self.settings.hard_negatives, self.settings.uniform_negatives],
            "examples_written": self.examples_written,
            "visits_due": self.visits_due,
            "skipped_steps": self.skipped_steps,
        }

    def load_served(self, state: dict[str, Any]) -> None:
        """Restore the state that `served_state` returned. A ranker of other signals is left out: this one is new."""
        if has_other_signals(state):
            return
        self.served_network.load_state_dict(state["served_network"])
        with torch.no_grad():
            self.linear_F.copy_(state["linear_F"])
        self.mean_F, self.square_F = state["mean_F"].clone(), state["square_F"].clone()
        self.steps, self._folded = state["steps"], None

    def load_training(self, state: dict[str, Any]) -> None:
        """Restore the state that `training_state` returned, as `load_served` does."""
        if has_other_signals(state):
            return
        self.training_network.load_state_dict(state["training_network"])
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate  # a setting, which may have changed
        self.generator.set_state(state["generator"])
        self._load_examples(state)
        self.visits_due, self.skipped_steps = state["visits_due"], state["skipped_steps"]

    def _load_examples(self, state: Mapping[str, Any]) -> None:
        """Restore the ring of examples.

        A ring of another size takes the newest examples; with another number of negatives, none can be used.
        """
        held, size, written = len(state["signals_NCF"]), self.settings.buffer_examples, state["examples_written"]
        negatives = self.settings.hard_negatives, self.settings.uniform_negatives
        kept = min(held, size) if tuple(state["negatives"]) == negatives else 0
        order_N = np.arange(held)
        if kept < held or held < min(written, size):
            order_N, written = np.arange(written - kept, written) % max(held, 1), kept  # oldest first
        if kept:
            self.signals_NCF[:kept] = state["signals_NCF"][order_N]
            self.log_correction_NC[:kept] = state["log_correction_NC"][order_N]
        self.examples_written = written


def has_other_signals(state: Mapping[str, Any]) -> bool:
    """Whether a ranker's state is of a release with other signals. A state without names has the present ones."""
    return bool(state.get("signals", list(SIGNALS)) != list(SIGNALS))


def _network(signal_count: int, settings: RankerSettings) -> nn.Sequential:
    wide, narrow = settings.hidden
    return nn.Sequential(
        nn.Linear(signal_count, wide), nn.SiLU(), nn.Linear(wide, narrow), nn.SiLU(), nn.Linear(narrow, 1)
    )


def _initial_linear_weights() -> Tensor:
    """Return weights for the time before training: popularity, transitions, co-occurrence and text. Not measured."""
    weights = {  # by signal
        "popularity total": 0.3,
        "popularity month": 0.3,
        "session cooccurrence recent": 0.5,
        "cooccurrence recent": 0.5,
        "knn users": 0.3,
        "transition recent": 0.3,
        "text recent": 2.0,
        "text neighbor cooccurrence": 0.5,
        "genre affinity": 0.5,
        "backbone": 0.1,
        "repeat recency": 0.5,
    }
    return torch.tensor([weights.get(name, 0.0) for name in DENSE_SIGNALS])
