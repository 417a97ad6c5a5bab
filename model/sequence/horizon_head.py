"""Horizon head: maps a hidden state to one query vector per horizon, and titles to candidate vectors.

Lists are served from a cache, so the user may be `k` events further when a list is read. The query is conditioned on
that horizon: horizon 0 predicts the next title, horizon `k` the title after the next `k` events. One backbone pass
serves all horizons. Queries and candidates are projected to a small space and L2-normalized. A learned scale, the
inverse temperature, is bounded: beyond the bound one wrong pair can make the gradient of a step explode.
Source: arXiv 2605.23312 (projected head); the conditioning on horizons is specific to this project.

N rows · V titles · D width of the backbone · P width of the scoring space
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class HorizonHead(nn.Module):
    """Unit-length queries q and candidates e; `score = scale * <q, e>`."""

    def __init__(self, width: int, d_out: int, horizons: int, temperature: float, min_temperature: float) -> None:
        super().__init__()
        self.max_log_scale = math.log(1 / min_temperature)
        self.query_projection = nn.Linear(width, d_out, bias=False)
        self.title_projection = nn.Linear(width, d_out, bias=False)
        self.gain = nn.Embedding(horizons, width)
        self.shift = nn.Embedding(horizons, width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.shift.weight)

    @property
    def scale(self) -> Tensor:
        """The inverse temperature: a logit is a cosine times this scale."""
        return self.log_scale.clamp(0.0, self.max_log_scale).exp()

    def query(self, hidden_ND: Tensor, horizon_N: Tensor) -> Tensor:
        """q_NP of unit length; `horizon_N` is the index of each row's horizon in the settings' `horizons`."""
        conditioned_ND = torch.addcmul(self.shift(horizon_N), hidden_ND, 1 + self.gain(horizon_N))
        return normalize(self.query_projection(conditioned_ND), dim=1)

    def candidates(self, tower_VD: Tensor) -> Tensor:
        """e_VP of unit length."""
        return normalize(self.title_projection(tower_VD), dim=1)
