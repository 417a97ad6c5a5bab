"""Scores one set of candidates for several horizons with a ranker whose weights no longer change.

A candidate's signals differ between horizons in three columns only. The first layer's shared part is therefore
computed once, and the three columns are added for each horizon. The standardization is folded into the weights. The
scores equal those of `Ranker.score` up to rounding.

C candidates · H horizons · F ranker signals · W width of the first layer · X candidates of all horizons, flattened ·
3 the columns that differ between horizons
"""

import copy
from typing import Final

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import silu

from model.signals.ranker import Ranker
from model.signals.table import COLUMN, DENSE_SIGNALS

_HORIZON_COLUMNS: Final = [COLUMN[name] for name in ("backbone", "backbone minus top", "horizon")]


class Scorer:
    """Copies the ranker's served weights when it is created."""

    @torch.no_grad()
    def __init__(self, ranker: Ranker, horizons: tuple[int, ...]) -> None:
        self.log_horizon_H = np.log1p(np.array(horizons, np.float32))
        linear_F = torch.zeros(ranker.signal_count)
        linear_F[: len(DENSE_SIGNALS)] = ranker.linear_F.detach()
        self.backbone_weight = float(linear_F[_HORIZON_COLUMNS[0]])
        self.linear_F = linear_F.index_fill(0, torch.tensor(_HORIZON_COLUMNS), 0.0)
        layers = copy.deepcopy(ranker.served_network) if ranker.steps else ()
        self.layers = [layer for layer in layers if isinstance(layer, nn.Linear)]
        if not self.layers:  # before the first training step the linear score alone is used
            return
        self.low_F, self.high_F, weight_FW, self.bias_W = ranker.folded_layer()
        self.weight_3W = weight_FW[_HORIZON_COLUMNS].numpy()
        self.low_3, self.high_3 = self.low_F[_HORIZON_COLUMNS].numpy(), self.high_F[_HORIZON_COLUMNS].numpy()
        self.shared_weight_FW = weight_FW.index_fill(0, torch.tensor(_HORIZON_COLUMNS), 0.0)

    @torch.no_grad()
    def __call__(
        self, signals_CF: NDArray[np.float32], backbone_HC: NDArray[np.float32], top_H: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return score_HC, higher is better.

        `top_H` is the backbone's best score of each horizon. The three columns of `signals_CF` that differ between
        horizons are not read.
        """
        x_CF = torch.from_numpy(signals_CF)
        score_HC: NDArray[np.float32] = (x_CF @ self.linear_F).numpy() + np.float32(self.backbone_weight) * backbone_HC
        if not self.layers:
            return score_HC
        shared_CW = torch.addmm(self.bias_W, x_CF.clamp(self.low_F, self.high_F), self.shared_weight_FW)
        hidden_HCW = np.empty((*backbone_HC.shape, shared_CW.shape[1]), np.float32)
        horizon_parts = backbone_HC, top_H, self.log_horizon_H, self.low_3, self.high_3, self.weight_3W
        _add_horizon_columns(shared_CW.numpy(), *horizon_parts, hidden_HCW)
        y_XW = torch.from_numpy(hidden_HCW).flatten(0, 1)
        for layer in self.layers[1:]:
            y_XW = layer(silu(y_XW, inplace=True))
        score_HC += y_XW.numpy().reshape(score_HC.shape)
        return score_HC


@njit(cache=True)
def _add_horizon_columns(
    shared_CW: NDArray[np.float32],
    backbone_HC: NDArray[np.float32],
    top_H: NDArray[np.float32],
    log_horizon_H: NDArray[np.float32],
    low_3: NDArray[np.float32],
    high_3: NDArray[np.float32],
    weight_3W: NDArray[np.float32],
    hidden_HCW: NDArray[np.float32],
) -> None:
    """Write the first layer's sums of each horizon: the shared part plus the three columns."""
    for h in range(backbone_HC.shape[0]):
        horizon = min(max(log_horizon_H[h], low_3[2]), high_3[2])
        for c in range(backbone_HC.shape[1]):
            score = min(max(backbone_HC[h, c], low_3[0]), high_3[0])
            difference = min(max(backbone_HC[h, c] - top_H[h], low_3[1]), high_3[1])
            for w in range(weight_3W.shape[1]):
                added = score * weight_3W[0, w] + difference * weight_3W[1, w] + horizon * weight_3W[2, w]
                hidden_HCW[h, c, w] = shared_CW[c, w] + added
