"""A small network with optimizers, titles and windows, for tests of the training step.

V titles · B windows · L events of a window
"""

import torch
from torch import Generator

from model.sequence.network import Network, TitleInputs, Windows
from model.sequence.optimizers import Optimizers, RowwiseAdagrad
from model.settings import NetworkSettings, ObjectiveSettings, OptimSettings

NETWORK = NetworkSettings(
    width=16, blocks=1, heads=2, max_history=12, d_text=6, d_id=8, d_out=12, horizons=(0, 3), dropout=0.2
)


OBJECTIVE = ObjectiveSettings(negatives=33, target_windows=(1, 4), half_life=2.0)


def generator(seed: int = 31) -> Generator:
    return torch.Generator().manual_seed(seed)


def windows_of(titles: list[list[int]], weight: float = 1.0) -> Windows:
    """Full windows of one length, one event per minute."""
    title_BL = torch.tensor(titles)
    time_BL = torch.arange(title_BL.shape[1]).mul(60_000).add(10**12).expand_as(title_BL).clone()
    length_B = torch.full((len(titles),), title_BL.shape[1])
    return Windows(title_BL, torch.full_like(title_BL, 3), time_BL, torch.full(title_BL.shape, weight), length_B)


def training_setup(
    titles: int, shape: NetworkSettings = NETWORK, lr: float = 3e-3
) -> tuple[Network, Optimizers, TitleInputs]:
    """A network, its optimizers and `titles` launched titles."""
    torch.manual_seed(32)
    network = Network(shape)
    settings = OptimSettings(lr=lr, row_init=0.3)
    rows = RowwiseAdagrad(titles, shape.d_id, settings, generator(33))
    semantic_VE = torch.randn(titles, shape.d_text, generator=generator(34))
    count_V = torch.full((titles,), 5.0)
    inputs = TitleInputs(semantic_VE, rows.table_VI, count_V, torch.arange(titles), torch.rand(titles))
    return network, Optimizers(network, rows, settings), inputs
