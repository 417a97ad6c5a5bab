"""A small random network with titles and windows, for tests of the network.

V titles · B windows · L events of a window
"""

import torch
from torch import Tensor

from model.sequence.network import Network, TitleInputs, Windows
from model.settings import NetworkSettings

SETTINGS = NetworkSettings(width=8, blocks=2, heads=2, max_history=9, d_text=6, d_id=4, d_out=5, horizons=(0, 3))

V = 23  # titles


def make_network() -> Network:
    """A network with large random weights, so that every part of the input matters."""
    torch.manual_seed(21)
    network = Network(SETTINGS)
    with torch.no_grad():
        for p in network.parameters():
            if p.dim() > 0:
                p.normal_(std=0.5)
    return network


def titles() -> TitleInputs:
    g = torch.Generator().manual_seed(22)
    counts = torch.arange(V).float()
    return TitleInputs(torch.randn(V, 6, generator=g), torch.randn(V, 4, generator=g), counts, torch.arange(V))


def random_windows(lengths: tuple[int, ...] = (5, 0, 9, 2, 7)) -> Windows:
    g = torch.Generator().manual_seed(23)
    shape = (len(lengths), max(lengths))
    title_BL = torch.randint(-1, V, shape, generator=g)
    time_BL = torch.randint(0, 10**9, shape, generator=g).cumsum(1) + 10**12
    action_BL = torch.randint(1, 16, shape, generator=g)
    truncated_B = torch.tensor(lengths) > 6
    return Windows(title_BL, action_BL, time_BL, torch.ones(shape), torch.tensor(lengths), truncated_B)


def after_last_event(windows: Windows) -> Tensor:
    """A query time for each window, ms."""
    return windows.time_BL.amax(1) + 12_345
