"""Optimizers: row-wise Adagrad for the id embeddings, AdamW with weight averaging for the dense parameters.

Embedding rows are updated rarely and unevenly. Each row has one number of state, the decayed sum of its squared
gradients. Without the decay a very popular title would soon stop learning. A step changes only the rows that it names.
Dense parameters are updated in every step. A step is skipped and counted if its gradient norm is not finite or far
above the typical norm. The published weights are an exponential moving average, which damps single micro-batches.
All state is in flat dictionaries of tensors. Steps draw no random numbers, so training resumes bit for bit.
Source: row-wise Adagrad as in FBGEMM's table batched embedding (`G += mean(g^2); w -= lr g / (sqrt(G) + eps)`).

V titles · I width of an id embedding · M distinct titles of a step
"""

from typing import Any, Final

import torch
from torch import Generator, Tensor, nn

from model.settings import OptimSettings

# Not measured.
WARMUP_STEPS: Final = 20  # steps before a large gradient can be skipped
NORM_DECAY: Final = 0.98  # per step, of the typical gradient norm
AVERAGE_WARMUP_STEPS: Final = 10  # after n steps the average decays by at most n / (n + this)
ADAGRAD_EPSILON: Final = 1e-10  # added to the root of the squared gradients


class RowwiseAdagrad:
    """The id embeddings: a table outside the module, with one number of optimizer state per row."""

    def __init__(self, capacity: int, d_id: int, settings: OptimSettings, generator: Generator) -> None:
        self.settings = settings
        self.table_VI = torch.randn(capacity, d_id, generator=generator) * settings.row_init
        self.squares_V = torch.zeros(capacity)

    def update(self, rows_M: Tensor, grad_MI: Tensor) -> None:
        """Update these rows; each row may occur only once."""
        s = self.settings
        squares_M = self.squares_V[rows_M] * s.row_decay + grad_MI.square().mean(1)
        self.squares_V[rows_M] = squares_M
        step_MI = grad_MI / (squares_M.sqrt() + ADAGRAD_EPSILON).unsqueeze(1)
        self.table_VI.index_add_(0, rows_M, step_MI, alpha=-s.row_lr)

    def reset(self, rows_M: Tensor, generator: Generator) -> None:
        """Initialize these rows for other titles; nothing of the evicted titles remains."""
        init_MI = torch.randn(len(rows_M), self.table_VI.shape[1], generator=generator)
        self.table_VI[rows_M] = init_MI * self.settings.row_init
        self.squares_V[rows_M] = 0.0

    def grow(self, capacity: int, generator: Generator) -> None:
        """Append new rows; existing rows stay unchanged."""
        more = RowwiseAdagrad(capacity - len(self.table_VI), self.table_VI.shape[1], self.settings, generator)
        self.table_VI = torch.cat([self.table_VI, more.table_VI])
        self.squares_V = torch.cat([self.squares_V, more.squares_V])

    def state_dict(self) -> dict[str, Tensor]:
        return {"table": self.table_VI.clone(), "squares": self.squares_V.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.table_VI, self.squares_V = state["table"].clone(), state["squares"].clone()


class DenseOptimizer:
    """AdamW (optionally Muon for the matrices of linear layers), weight averaging, and the check of each gradient."""

    def __init__(self, module: nn.Module, settings: OptimSettings) -> None:
        self.settings = settings
        self.parameters = dict(module.named_parameters())
        hidden = (
            [m.weight for m in module.modules() if isinstance(m, nn.Linear)]
            if settings.matrix_optimizer == "muon"
            else []
        )
        self.muon = torch.optim.Muon(hidden, settings.muon_lr, settings.weight_decay) if hidden else None
        in_muon = {id(p) for p in hidden}
        matrices = [p for p in self.parameters.values() if p.dim() > 1 and id(p) not in in_muon]
        vectors = [p for p in self.parameters.values() if p.dim() <= 1]  # weight decay would only shrink them
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.typical_norm = 0.0  # moving average of the gradient norm
        self.steps = 0
        self.skipped = 0

    def accept_step(self) -> bool:
        """Whether to step with the current gradients; counts the step either way."""
        grads = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))))
        self.steps += 1
        limit = self.settings.max_norm_ratio * self.typical_norm
        finite = norm < float("inf")  # also false for NaN
        accepted = finite and (self.steps <= WARMUP_STEPS or norm <= limit)
        if finite:  # Norms that stay large must become typical, or learning would never resume.
            clipped = norm if self.steps <= WARMUP_STEPS else min(norm, limit)
            average = NORM_DECAY * self.typical_norm + (1 - NORM_DECAY) * clipped
            self.typical_norm = clipped if self.typical_norm == 0 else average
        self.skipped += not accepted
        return accepted

    def step(self) -> None:
        """Update the parameters and their average; early steps average faster to drop the random initial weights."""
        self.adamw.step()
        if self.muon is not None:
            self.muon.step()  # type: ignore[no-untyped-call]
        rate = 1 - min(self.settings.ema, self.steps / (self.steps + AVERAGE_WARMUP_STEPS))
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
        state["step_control"] = torch.tensor([self.typical_norm, self.steps, self.skipped], dtype=torch.float64)
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore a state that `state_dict` returned; the module loads its own weights."""
        for name, p in self.parameters.items():
            self.average[name] = state[f"average.{name}"].clone()
            keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"adamw.{name}.{key}" in state]
            self.adamw.state[p] = {key: state[f"adamw.{name}.{key}"].clone() for key in keys}
            if self.muon is not None and f"muon.{name}" in state:
                self.muon.state[p] = {"momentum_buffer": state[f"muon.{name}"].clone()}
        typical_norm, steps, skipped = state["step_control"].tolist()
        self.typical_norm, self.steps, self.skipped = typical_norm, int(steps), int(skipped)


class Optimizers:
    """The two optimizers of a training step."""

    def __init__(self, module: nn.Module, rows: RowwiseAdagrad, settings: OptimSettings) -> None:
        self.dense = DenseOptimizer(module, settings)
        self.rows = rows

    def state_dict(self) -> dict[str, Tensor]:
        dense = {f"dense.{name}": value for name, value in self.dense.state_dict().items()}
        return dense | {f"rows.{name}": value for name, value in self.rows.state_dict().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for prefix, part in (("dense.", self.dense), ("rows.", self.rows)):
            part.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
