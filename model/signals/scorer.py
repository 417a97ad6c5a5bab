"""The ranker as a server asks it: one set of candidates, several horizons, weights that no longer change.

A candidate's signals differ between horizons in three columns only, so the first layer is multiplied once and those
three are added for each horizon; standardising is folded into its weights. The scores are those of `Ranker.score`, to
rounding.

C candidates · H horizons · F signals · D those of the linear score · W width of the first layer
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
from model.signals.table import COLUMN, DENSE

_OWN: Final = [COLUMN[name] for name in ("backbone", "backbone lead", "delay")]  # what differs between horizons


class Scorer:
    """Made of the ranker's served weights as they are now."""

    @torch.no_grad()
    def __init__(self, ranker: Ranker, horizons: tuple[int, ...]) -> None:
        self.delay_H = np.log1p(np.array(horizons, np.float32))
        linear_F = torch.zeros(ranker.columns)
        linear_F[: len(DENSE)] = ranker.linear_D.detach()
        self.backbone = float(linear_F[_OWN[0]])
        self.linear_F = linear_F.index_fill(0, torch.tensor(_OWN), 0.0)
        layers = copy.deepcopy(ranker.network) if ranker.steps else ()
        self.layers = [layer for layer in layers if isinstance(layer, nn.Linear)]
        if not self.layers:  # nothing is learned yet: the linear score alone
            return
        self.low_F, self.high_F, weight_FW, self.bias_W = ranker.folded()
        self.own_3W = weight_FW[_OWN].numpy()
        self.own_low_3, self.own_high_3 = self.low_F[_OWN].numpy(), self.high_F[_OWN].numpy()
        self.shared_FW = weight_FW.index_fill(0, torch.tensor(_OWN), 0.0)

    @torch.no_grad()
    def __call__(
        self, signals_CF: NDArray[np.float32], backbone_HC: NDArray[np.float32], lead_H: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """score_HC, higher is better. `lead_H` is the backbone's best; the signals' own backbone, lead and delay are
        not read."""
        x_CF = torch.from_numpy(signals_CF)
        score_HC: NDArray[np.float32] = (x_CF @ self.linear_F).numpy() + np.float32(self.backbone) * backbone_HC
        if not self.layers:
            return score_HC
        shared_CW = torch.addmm(self.bias_W, x_CF.clamp(self.low_F, self.high_F), self.shared_FW)
        hidden_HCW = np.empty((*backbone_HC.shape, shared_CW.shape[1]), np.float32)
        own = backbone_HC, lead_H, self.delay_H, self.own_low_3, self.own_high_3, self.own_3W
        _add_own(shared_CW.numpy(), *own, hidden_HCW)
        y_XW = torch.from_numpy(hidden_HCW).flatten(0, 1)
        for layer in self.layers[1:]:
            y_XW = layer(silu(y_XW, inplace=True))
        score_HC += y_XW.numpy().reshape(score_HC.shape)
        return score_HC


@njit(cache=True)
def _add_own(
    shared_CW: NDArray[np.float32],
    backbone_HC: NDArray[np.float32],
    lead_H: NDArray[np.float32],
    delay_H: NDArray[np.float32],
    low_3: NDArray[np.float32],
    high_3: NDArray[np.float32],
    weight_3W: NDArray[np.float32],
    hidden_HCW: NDArray[np.float32],
) -> None:
    """The first layer's sums of each horizon: what all share and its own three signals."""
    for h in range(backbone_HC.shape[0]):
        delay = min(max(delay_H[h], low_3[2]), high_3[2])
        for c in range(backbone_HC.shape[1]):
            logit = min(max(backbone_HC[h, c], low_3[0]), high_3[0])
            behind = min(max(backbone_HC[h, c] - lead_H[h], low_3[1]), high_3[1])
            for w in range(weight_3W.shape[1]):
                own = logit * weight_3W[0, w] + behind * weight_3W[1, w] + delay * weight_3W[2, w]
                hidden_HCW[h, c, w] = shared_CW[c, w] + own
