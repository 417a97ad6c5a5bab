"""Decoder: from a hidden state to a query that titles are scored against, one query for each delay.

Lists are read from a cache, so the viewer may be `k` events further when one is read. The query is conditioned on that
delay: horizon 0 asks for the next title, horizon `k` for what comes after the next `k` events. One backbone pass,
several cheap decodes. Queries and candidates are projected to few dims and L2-normalised; a learned scale is the
temperature's inverse (bounded: beyond it the softmax is so sharp that one wrong pair blows up the step).
Source: arXiv 2605.23312 (projected head); the delay conditioning is this project's.

N rows · V titles · D width · P dims of the product
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class HorizonHead(nn.Module):
    """Unit queries and unit candidates; `score = scale * <q, e>`."""

    def __init__(self, width: int, d_out: int, horizons: int, temperature: float, coldest: float) -> None:
        super().__init__()
        self.most = math.log(1 / coldest)
        self.head = nn.Linear(width, d_out, bias=False)
        self.title = nn.Linear(width, d_out, bias=False)
        self.stretch = nn.Embedding(horizons, width)
        self.shift = nn.Embedding(horizons, width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))
        nn.init.zeros_(self.stretch.weight)
        nn.init.zeros_(self.shift.weight)

    @property
    def scale(self) -> Tensor:
        """What a cosine is multiplied by to become a logit."""
        return self.log_scale.clamp(0.0, self.most).exp()

    def query(self, hidden_ND: Tensor, horizon_N: Tensor) -> Tensor:
        """q_NP of unit length; `horizon_N` is the place of each row's delay in the settings' `horizons`."""
        delayed_ND = torch.addcmul(self.shift(horizon_N), hidden_ND, 1 + self.stretch(horizon_N))
        return normalize(self.head(delayed_ND), dim=1)

    def candidates(self, tower_VD: Tensor) -> Tensor:
        """e_VP of unit length."""
        return normalize(self.title(tower_VD), dim=1)
