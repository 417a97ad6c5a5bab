"""FLOPs per training token: by the paper's formula, by this network's layers, and measured in a real step.

The paper compares output heads by FLOPs per training token (arXiv 2605.23312, figure 2). Only part of its text was
available to us. Secondary sources cite 1.26e10 for the full softmax over a million titles (6 blocks, width 1024, 512
events), 3.56e8 with 1 % of the titles sampled and a head of an eighth of the width, and a ratio of about 249 at ten
million titles. The following formula reproduces all three numbers, so we take it to be the paper's:

    F = n (48 d^2 + 12 t d)  +  12 p rho v  +  12 d p (if p < d)

A multiplication and its addition are two operations, and a backward pass costs twice a forward pass: 6 operations per
weight and token. 48 d^2 is a block of 8 d^2 weights; 12 t d is attention over t events; the 12 of the output head
counts the title table twice, as input and as output.

`layer_flops` counts the matrix products of this network, where the input is a lookup without FLOPs. It is exact:
`measured_flops` counts the same products while they run.

n blocks · d width · t events of a window · p width of the scoring space · v titles · rho share of them in a step
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Generator, Tensor
from torch.utils.flop_counter import FlopCounterMode

from model.sequence.network import Network, TitleInputs, Windows
from model.sequence.objective import build_batch, train_step
from model.sequence.optimizers import Optimizers, RowwiseAdagrad
from model.sequence.title_tower import TitleTower
from model.settings import NetworkSettings, SequenceSettings

PARTS: Final = ("backbone", "title_tower", "horizon_head")
WINDOWS: Final = 8  # full windows in the measured step


def paper_flops(
    blocks: int, width: int, events: int, titles: float, sampled: float = 1.0, d_out: int | None = None
) -> float:
    """FLOPs per training token by the paper's formula.

    `sampled` is the share of the titles in a step, `d_out` the width of a projected head.
    """
    softmax = 12 * (d_out or width) * sampled * titles
    projection = 12 * width * d_out if d_out else 0
    return blocks * (48 * width**2 + 12 * events * width) + softmax + projection


@dataclass(frozen=True)
class TrainingStep:
    """The sizes of one training step."""

    tokens: int  # of the backbone
    rows: int  # of the loss
    titles: int  # distinct
    negatives: int


def layer_flops(network: NetworkSettings, step: TrainingStep) -> dict[str, float]:
    """FLOPs per token by part, for a step on full windows; heads of auxiliary tasks are not counted."""
    s, d = network, network.width
    backbone = s.blocks * (66 * d**2 + 12 * s.max_history * d)  # with the gates, a block has 11 d^2 weights
    tower = 4 * s.d_text * d + 6 * s.d_id * d + 24 * d**2  # text embeddings are inputs and need no gradient
    head = step.rows * (6 * d * s.d_out + 6 * s.d_out * step.negatives) + step.titles * 6 * d * s.d_out
    return {
        "backbone": float(backbone),
        "title_tower": tower * step.titles / step.tokens,
        "horizon_head": head / step.tokens,
    }


@dataclass(frozen=True)
class MeasuredStep:
    """A measured step: its sizes, and FLOPs per token by part."""

    step: TrainingStep
    parts: dict[str, float]


def measured_flops(settings: SequenceSettings, titles: int, seed: int = 0) -> MeasuredStep:
    """Count the FLOPs of one training step on WINDOWS full windows over `titles` random titles."""
    network, optimizers, inputs, windows = _random_problem(settings, titles, seed)
    horizons = settings.network.horizons
    batch = build_batch(windows, inputs, horizons, settings.objective, Generator().manual_seed(seed))
    assert batch is not None
    tokens = int(windows.length_B.sum())
    step = TrainingStep(tokens, len(batch.rows.title_N), len(batch.title_M), settings.objective.negatives)
    with flop_counter() as counter:
        train_step(network, optimizers, inputs, windows, settings.objective, Generator().manual_seed(seed))
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    backbone = by_module["Network.backbone"]
    # Summed over its layers: the counter misses some backward passes in the total of the tower module.
    tower = sum(count for name, count in by_module.items() if name.startswith(f"{TitleTower.__name__}."))
    parts = backbone, tower, by_module["Global"] - backbone - tower
    return MeasuredStep(step, {name: count / tokens for name, count in zip(PARTS, parts, strict=True)})


def flop_counter() -> FlopCounterMode:
    """A context that counts the FLOPs of all matrix products run within it."""
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _in_place})


def _in_place(sum_shape: Sequence[int], left: Sequence[int], right: Sequence[int], **_: Any) -> int:
    """FLOPs of `sum += left @ right`, which PyTorch's own table does not have."""
    return 2 * left[0] * left[1] * right[1]


def _random_problem(
    settings: SequenceSettings, titles: int, seed: int
) -> tuple[Network, Optimizers, TitleInputs, Windows]:
    """A new network with random titles and windows to train on."""
    shape, generator = settings.network, Generator().manual_seed(seed)
    network = Network(shape)
    rows = RowwiseAdagrad(titles, shape.d_id, settings.optim, generator)
    semantic_VE = torch.randn(titles, shape.d_text, generator=generator)
    inputs = TitleInputs(semantic_VE, rows.table_VI, torch.full((titles,), 5.0), torch.arange(titles), None)
    title_BL = torch.randint(titles, (WINDOWS, shape.max_history), generator=generator)
    return network, Optimizers(network, rows, settings.optim), inputs, _full_windows(title_BL)


def _full_windows(title_BL: Tensor) -> Windows:
    """Windows without padding, one event per minute, all of them trained."""
    time_BL = torch.arange(title_BL.shape[1]).mul(60_000).expand_as(title_BL).clone()
    length_B = torch.full((len(title_BL),), title_BL.shape[1])
    return Windows(title_BL, torch.full_like(title_BL, 3), time_BL, torch.ones(title_BL.shape), length_B)
