"""What a training token costs, in floating-point operations: by the paper's formula, by this network's own shape, and
counted while a step runs.

The paper compares decoders by FLOPs a training token (arXiv 2605.23312, figure 2). Its text was at hand only in part;
others read off 1.26e10 for the full decoder over a million titles (6 blocks, width 1024, 512 events), 3.56e8 with 1 %
of the titles sampled and a head of an eighth of the width, and a factor of about 249 at ten million. This formula gives
all three back, so it is taken to be theirs:

    F = L (48 d^2 + 12 T d)  +  12 p rho V  +  12 d p (where p < d)

A multiplication and its addition are two operations, and a backward pass costs twice a forward one: 6 a weight and
token. 48 d^2 is a block of 8 d^2 weights; 12 T d is what attention adds over T events; the 12 of the decoder counts the
table of titles twice, once as input and once as output.

`own` counts the matrix products that this network really makes; the input is a lookup here and costs none. It is exact:
`measured` counts the same products while they happen.

L blocks · d width · T events of a window · p dims of the product · V titles · rho share of them in a step
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Generator, Tensor
from torch.utils.flop_counter import FlopCounterMode

from model.sequence.model import SequenceSettings
from model.sequence.network import Network, NetworkSettings, TitleInputs, Windows
from model.sequence.objective import batch_of, train_step
from model.sequence.optimizers import Optimisers, RowwiseAdagrad

PARTS: Final = ("backbone", "tower", "decoder")
WINDOWS: Final = 8  # full histories in the step that is counted


def paper(blocks: int, width: int, events: int, titles: float, sampled: float = 1.0, d_out: int | None = None) -> float:
    """FLOPs a training token; `sampled` is the share of the titles in a step, `d_out` the projected head's width."""
    horizon_head = 12 * (d_out or width) * sampled * titles
    head = 12 * width * d_out if d_out else 0
    return blocks * (48 * width**2 + 12 * events * width) + horizon_head + head


@dataclass(frozen=True)
class TrainingStep:
    """What one training step handles: tokens of the backbone, rows of the loss, different titles, negatives."""

    tokens: int
    rows: int
    titles: int
    negatives: int


def own(network: NetworkSettings, step: TrainingStep) -> dict[str, float]:
    """FLOPs a token by part, of a step over windows of the network's full history; heads of further tasks are left
    out."""
    s, d = network, network.width
    backbone = s.blocks * (66 * d**2 + 12 * s.history * d)  # gates make it 11 d^2 weights a block
    tower = 4 * s.d_text * d + 6 * s.d_id * d + 24 * d**2  # a text is given: it needs no gradient
    horizon_head = step.rows * (6 * d * s.d_out + 6 * s.d_out * step.negatives) + step.titles * 6 * d * s.d_out
    return {
        "backbone": float(backbone),
        "tower": tower * step.titles / step.tokens,
        "decoder": horizon_head / step.tokens,
    }


@dataclass(frozen=True)
class Counted:
    """A real step: what it handled, and FLOPs a token by part."""

    step: TrainingStep
    parts: dict[str, float]


def measured(settings: SequenceSettings, titles: int, seed: int = 0) -> Counted:
    """Take one training step over WINDOWS full windows of random titles, of which there are so many, and count."""
    network, optimisers, known, windows = _made_up(settings, titles, seed)
    horizons = settings.network.horizons
    batch = batch_of(windows, known, horizons, settings.objective, Generator().manual_seed(seed))
    assert batch is not None
    tokens = int(windows.length_B.sum())
    step = TrainingStep(tokens, len(batch.rows.title_N), len(batch.title_U), settings.objective.negatives)
    with counting() as counter:
        train_step(network, optimisers, known, windows, settings.objective, Generator().manual_seed(seed))
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    backbone = by_module["Network.backbone"]
    # By its layers: the backward pass of those that take data only is not told for the tower as a whole.
    tower = sum(count for name, count in by_module.items() if name.startswith("Tower."))
    parts = backbone, tower, by_module["Global"] - backbone - tower
    return Counted(step, {name: count / tokens for name, count in zip(PARTS, parts, strict=True)})


def counting() -> FlopCounterMode:
    """Counts the matrix products of all that runs within it."""
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _in_place})


def _in_place(sum_shape: Sequence[int], left: Sequence[int], right: Sequence[int], **_: Any) -> int:
    """FLOPs of `sum += left @ right`, which torch's own table leaves out."""
    return 2 * left[0] * left[1] * right[1]


def _made_up(settings: SequenceSettings, many: int, seed: int) -> tuple[Network, Optimisers, TitleInputs, Windows]:
    """A new network and something for it to learn, drawn at random."""
    shape, generator = settings.network, Generator().manual_seed(seed)
    network = Network(shape)
    rows = RowwiseAdagrad(many, shape.d_id, settings.optim, generator)
    text_VS = torch.randn(many, shape.d_text, generator=generator)
    known = TitleInputs(text_VS, rows.table_VE, torch.full((many,), 5.0), torch.arange(many), None)
    title_BL = torch.randint(many, (WINDOWS, shape.history), generator=generator)
    return network, Optimisers(network, rows, settings.optim), known, _full(title_BL)


def _full(title_BL: Tensor) -> Windows:
    """Windows without padding, an event a minute, all of which are learned."""
    time_BL = torch.arange(title_BL.shape[1]).mul(60_000).expand_as(title_BL).clone()
    length_B = torch.full((len(title_BL),), title_BL.shape[1])
    return Windows(title_BL, torch.full_like(title_BL, 3), time_BL, torch.ones(title_BL.shape), length_B)
