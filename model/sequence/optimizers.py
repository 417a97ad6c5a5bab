"""Optimisers: row-wise Adagrad for tables of ids, AdamW with an average of the weights for matrices.

Rows are hit rarely and unevenly, so each keeps one number, the decayed sum of its squared gradients: without the decay
a title that is watched every minute would soon stop learning. A step touches the rows it names and no other bit.
Matrices see every step: a step whose gradient is not finite, or far beyond what gradients have been, is left out and
counted. What is published is their exponential moving average, which a single micro-batch cannot jolt.
All state is in flat dictionaries of tensors, and nothing here draws a random number: a restart repeats every bit.
Sources: row-wise Adagrad as in FBGEMM's table batched embedding (`G += mean(g^2); w -= lr g / (sqrt(G) + eps)`).

V rows of the table · E dims · U unique rows of a step
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Generator, Tensor, nn

WARM_STEPS: Final = 20  # steps before a gradient can be called exploding
MEMORY: Final = 0.98  # per step, of the usual size of a gradient


@dataclass(frozen=True)
class OptimSettings:
    lr: float = 2e-3
    weight_decay: float = 0.01
    row_lr: float = 0.05
    row_decay: float = 0.999  # of a row's sum of squares, per hit
    row_init: float = 0.02  # standard deviation of a new row
    ema: float = 0.95  # of the published weights, per step
    explodes: float = 20.0  # times the usual gradient norm
    matrices: Literal["adamw", "muon"] = "adamw"  # what moves the matrices of linear layers
    muon_lr: float = 0.02


class RowwiseAdagrad:
    """A table outside the module, with one number of state a row."""

    def __init__(self, capacity: int, d_id: int, settings: OptimSettings, generator: Generator) -> None:
        self.settings = settings
        self.table_VE = torch.randn(capacity, d_id, generator=generator) * settings.row_init
        self.squares_V = torch.zeros(capacity)

    def update(self, rows_U: Tensor, grad_UE: Tensor) -> None:
        """One step for these rows (each named once)."""
        s = self.settings
        squares_U = self.squares_V[rows_U] * s.row_decay + grad_UE.square().mean(1)
        self.squares_V[rows_U] = squares_U
        step_UE = grad_UE / (squares_U.sqrt() + 1e-10).unsqueeze(1)
        self.table_VE.index_add_(0, rows_U, step_UE, alpha=-s.row_lr)

    def reset(self, rows_U: Tensor, generator: Generator) -> None:
        """Give these rows to other titles: nothing of the old ones stays."""
        fresh_UE = torch.randn(len(rows_U), self.table_VE.shape[1], generator=generator)
        self.table_VE[rows_U] = fresh_UE * self.settings.row_init
        self.squares_V[rows_U] = 0.0

    def grow(self, capacity: int, generator: Generator) -> None:
        """More rows; those in use keep every bit."""
        more = RowwiseAdagrad(capacity - len(self.table_VE), self.table_VE.shape[1], self.settings, generator)
        self.table_VE = torch.cat([self.table_VE, more.table_VE])
        self.squares_V = torch.cat([self.squares_V, more.squares_V])

    def state_dict(self) -> dict[str, Tensor]:
        return {"table": self.table_VE.clone(), "squares": self.squares_V.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.table_VE, self.squares_V = state["table"].clone(), state["squares"].clone()


class DenseOptimiser:
    """AdamW on a module's parameters (or Muon on the matrices of its linear layers), their moving average, and the
    judgement of each step."""

    def __init__(self, module: nn.Module, settings: OptimSettings) -> None:
        self.settings = settings
        self.parameters = dict(module.named_parameters())
        hidden = [m.weight for m in module.modules() if isinstance(m, nn.Linear)] if settings.matrices == "muon" else []
        self.muon = torch.optim.Muon(hidden, settings.muon_lr, settings.weight_decay) if hidden else None
        apart = {id(p) for p in hidden}
        matrices = [p for p in self.parameters.values() if p.dim() > 1 and id(p) not in apart]
        gains = [p for p in self.parameters.values() if p.dim() <= 1]  # decay would only shrink them
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": gains, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.usual = 0.0  # gradient norm, of late
        self.steps = 0
        self.skipped = 0

    def accepts(self) -> bool:
        """Whether the gradients at hand may be stepped with; counts the step either way."""
        grads = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))))
        self.steps += 1
        limit = self.settings.explodes * self.usual
        finite = norm < float("inf")  # false for a NaN too
        accepted = finite and (self.steps <= WARM_STEPS or norm <= limit)
        if finite:  # A gradient that stays large must become usual, or learning would stop for good.
            seen = norm if self.steps <= WARM_STEPS else min(norm, limit)
            self.usual = seen if self.usual == 0 else MEMORY * self.usual + (1 - MEMORY) * seen
        self.skipped += not accepted
        return accepted

    def step(self) -> None:
        """Step and average; early on the average follows faster, so that it does not hold the first random weights."""
        self.adamw.step()
        if self.muon is not None:
            self.muon.step()  # type: ignore[no-untyped-call]
        rate = 1 - min(self.settings.ema, self.steps / (self.steps + 10))
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self.parameters.values()], rate)

    def zero_grad(self) -> None:
        for p in self.parameters.values():
            p.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        state = {f"average.{name}": value.clone() for name, value in self.average.items()}
        for name, p in self.parameters.items():
            state |= {f"adamw.{name}.{key}": value.clone() for key, value in self.adamw.state.get(p, {}).items()}
            if self.muon is not None and p in self.muon.state:
                state[f"muon.{name}"] = self.muon.state[p]["momentum_buffer"].clone()
        state["judgement"] = torch.tensor([self.usual, self.steps, self.skipped], dtype=torch.float64)
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The counterpart; the module's own weights are loaded by the module."""
        for name, p in self.parameters.items():
            self.average[name] = state[f"average.{name}"].clone()
            keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"adamw.{name}.{key}" in state]
            self.adamw.state[p] = {key: state[f"adamw.{name}.{key}"].clone() for key in keys}
            if self.muon is not None and f"muon.{name}" in state:
                self.muon.state[p] = {"momentum_buffer": state[f"muon.{name}"].clone()}
        usual, steps, skipped = state["judgement"].tolist()
        self.usual, self.steps, self.skipped = usual, int(steps), int(skipped)


class Optimisers:
    """Both, as a training step takes them."""

    def __init__(self, module: nn.Module, rows: RowwiseAdagrad, settings: OptimSettings) -> None:
        self.dense = DenseOptimiser(module, settings)
        self.rows = rows

    def state_dict(self) -> dict[str, Tensor]:
        dense = {f"dense.{name}": value for name, value in self.dense.state_dict().items()}
        return dense | {f"rows.{name}": value for name, value in self.rows.state_dict().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for prefix, part in (("dense.", self.dense), ("rows.", self.rows)):
            part.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
