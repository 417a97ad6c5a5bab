"""Shared by tests."""

import torch
from torch import Generator

from model.sequence.network import (
    Network,
    NetworkSettings,
    TitleInputs,
    Windows,
)
from model.sequence.objective import ObjectiveSettings
from model.sequence.optimizers import Optimisers, OptimSettings, RowwiseAdagrad

SHAPE = NetworkSettings(
    width=16, blocks=1, heads=2, history=12, d_text=6, d_id=8, d_out=12, horizons=(0, 3), dropout=0.2
)


WANTED = ObjectiveSettings(negatives=33, windows=(1, 4), half_life=2.0)


def generator(seed: int = 31) -> Generator:
    return torch.Generator().manual_seed(seed)


def windows_of(titles: list[list[int]], weight: float = 1.0) -> Windows:
    """Full windows of one length, an event a minute."""
    title_BL = torch.tensor(titles)
    time_BL = torch.arange(title_BL.shape[1]).mul(60_000).add(10**12).expand_as(title_BL).clone()
    length_B = torch.full((len(titles),), title_BL.shape[1])
    return Windows(title_BL, torch.full_like(title_BL, 3), time_BL, torch.full(title_BL.shape, weight), length_B)


def learner(v: int, shape: NetworkSettings = SHAPE, lr: float = 3e-3) -> tuple[Network, Optimisers, TitleInputs]:
    torch.manual_seed(32)
    network = Network(shape)
    settings = OptimSettings(lr=lr, row_init=0.3)
    rows = RowwiseAdagrad(v, shape.d_id, settings, generator(33))
    semantic_VS = torch.randn(v, shape.d_text, generator=generator(34))
    titles = TitleInputs(semantic_VS, rows.table_VE, torch.full((v,), 5.0), torch.arange(v), torch.rand(v))
    return network, Optimisers(network, rows, settings), titles
