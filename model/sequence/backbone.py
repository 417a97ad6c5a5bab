"""Backbone: a causal stack of gated attention blocks that knows how long ago things were.

Relative time matters more than depth. Every pair of a query and a key has a bias by the logarithm of the time between
the key's event and the moment of the prediction (in training: the next event's time), and one by their distance in
events. Softmax attention and a SwiGLU layer, each gated.

Windows of many lengths are packed into few rows of one capacity (first fit, longest first), so nearly no slot is
padding and no step handles users one by one; a query sees only earlier keys of its own window.
Sources: HSTU (arXiv 2402.17152: time and position bias, the query's time), LiGR and eSASRec (gates), arXiv 2605.23312
(sizes counted without embeddings and decoder).

B windows · R packed rows · C slots a row · D width · H heads · K dims of a head · F width of the feed-forward layer
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn.functional import silu

TIME_BUCKETS: Final = 48  # 1.5 an octave of seconds: the last begins at some 90 years
BUCKETS_AN_OCTAVE: Final = 1.5
HIDDEN: Final = TIME_BUCKETS  # the bucket of a key that the query may not see


@dataclass(frozen=True)
class Dims:
    """Size of a backbone; `2m` and so on promise the number of parameters, embeddings and decoder not counted."""

    width: int = 64
    blocks: int = 2
    heads: int = 2


PRESETS: Final[dict[str, Dims]] = {
    "cpu": Dims(),
    "2m": Dims(192, 5, 4),
    "10m": Dims(320, 9, 5),
    "50m": Dims(640, 11, 10),
    "200m": Dims(1152, 14, 18),
    "1b": Dims(2048, 22, 32),
}


@dataclass(frozen=True)
class Layout:
    """Where each window's tokens lie in the packed rows."""

    start_B: NDArray[np.int64]  # flat slot of each window's first token
    rows: int
    capacity: int
    window_RC: Tensor  # int64, which window a slot belongs to; -1: padding


def pack(lengths_B: NDArray[np.int64]) -> Layout:
    """Windows of these many tokens (each at least 1) into rows as long as the longest: first fit, longest first."""
    capacity = int(lengths_B.max())
    room, start_B = np.full(len(lengths_B), capacity), np.zeros(len(lengths_B), np.int64)
    for window in np.argsort(-lengths_B, kind="stable"):
        row = int(np.argmax(room >= lengths_B[window]))
        start_B[window] = row * capacity + capacity - room[row]
        room[row] -= lengths_B[window]
    rows = int((room < capacity).sum())
    window_X = np.full(rows * capacity, -1)
    window_X[slots(start_B, lengths_B)] = np.repeat(np.arange(len(lengths_B)), lengths_B)
    return Layout(start_B, rows, capacity, torch.from_numpy(window_X.reshape(rows, capacity)))


def slots(start_B: NDArray[np.int64], lengths_B: NDArray[np.int64]) -> NDArray[np.int64]:
    """The flat slots of all tokens, window by window."""
    first = np.cumsum(lengths_B) - lengths_B
    return np.repeat(start_B - first, lengths_B) + np.arange(int(lengths_B.sum()))


def time_bucket(gap: Tensor) -> Tensor:
    """The logarithmic bucket of a gap in ms; a negative one counts as none."""
    seconds = gap.clamp(min=0).to(torch.float32).mul_(0.001)
    return seconds.log1p_().mul_(BUCKETS_AN_OCTAVE / 0.6931472).clamp_(max=TIME_BUCKETS - 1).to(torch.int64)


def pair_buckets(layout: Layout, time_RC: Tensor, asked_RC: Tensor) -> Tensor:
    """bucket_RCC of (query, key): from the key's event to the moment asked about; HIDDEN where it may not see."""
    bucket_RCC = time_bucket(asked_RC.unsqueeze(2) - time_RC.unsqueeze(1))
    same_RCC = layout.window_RC.unsqueeze(2) == layout.window_RC.unsqueeze(1)
    return bucket_RCC.masked_fill_(~same_RCC.tril_(), HIDDEN)


def dropout(x: Tensor, rate: float, generator: Generator | None) -> Tensor:
    """Zero a share of the elements (in 256ths) and scale the others up; without a generator, `x` as it is.

    One random byte an element: five times faster than drawing a float for each.
    """
    kept = round(256 * (1 - rate))
    if generator is None or kept == 256:
        return x
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    keep = words.view(torch.uint8)[: x.numel()] < kept
    return x * keep.view(x.shape).to(x.dtype).mul_(256 / kept)


@njit(cache=True)
def _sum_by(index_X: NDArray[np.int64], value_HX: NDArray[Any], sum_HK: NDArray[Any]) -> None:
    """Add up values by index: four sums a place, for one would have to wait for itself."""
    many = index_X.size - index_X.size % 4
    for h in range(value_HX.shape[0]):
        part_4K = np.zeros((4, sum_HK.shape[1]), value_HX.dtype)
        for x in range(0, many, 4):
            part_4K[0, index_X[x]] += value_HX[h, x]
            part_4K[1, index_X[x + 1]] += value_HX[h, x + 1]
            part_4K[2, index_X[x + 2]] += value_HX[h, x + 2]
            part_4K[3, index_X[x + 3]] += value_HX[h, x + 3]
        for x in range(many, index_X.size):
            part_4K[0, index_X[x]] += value_HX[h, x]
        sum_HK[h] = part_4K[0] + part_4K[1] + (part_4K[2] + part_4K[3])


class _Take(torch.autograd.Function):
    """`table_HK[:, index_X]`. The stock backward of a gather is a hundred times slower than sums by index."""

    @staticmethod
    def forward(ctx: Any, table_HK: Tensor, index_X: Tensor) -> Tensor:
        ctx.save_for_backward(index_X)
        ctx.size = table_HK.shape
        return table_HK.index_select(1, index_X)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (index_X,) = ctx.saved_tensors
        grad_HK = grads[0].new_empty(ctx.size)
        _sum_by(index_X.numpy(), grads[0].contiguous().numpy(), grad_HK.numpy())
        return grad_HK, None


def _take(table_HK: Tensor, index_X: Tensor) -> Tensor:
    taken_HX: Tensor = _Take.apply(table_HK, index_X)  # type: ignore[no-untyped-call]
    return taken_HX


class Block(nn.Module):
    """`x + Wo(silu(g) * attention(x))`, then `x + W2(silu(a) * b)`: both gated, both on normalised input."""

    def __init__(self, dims: Dims, reach: int) -> None:
        super().__init__()
        width = dims.width
        self.heads = dims.heads
        self.norm = nn.LayerNorm(width, bias=False)
        self.qkvg = nn.Linear(width, 4 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.time = nn.Parameter(torch.zeros(dims.heads, TIME_BUCKETS))
        self.distance = nn.Parameter(torch.zeros(dims.heads, reach))
        self.ffn_norm = nn.LayerNorm(width, bias=False)
        self.ffn = nn.Linear(width, 4 * width, bias=False)
        self.ffn_out = nn.Linear(2 * width, width, bias=False)

    def forward(self, x_RCD: Tensor, bucket_RCC: Tensor, rate: float, generator: Generator | None) -> Tensor:
        x_RCD = x_RCD + dropout(self._attend(self.norm(x_RCD), bucket_RCC), rate, generator)
        return self._feed(x_RCD, rate, generator)

    def at(self, x_RCD: Tensor, bucket_RCC: Tensor, slot_N: Tensor) -> Tensor:
        """y_ND of these flat slots alone: in serving only a window's last token is asked."""
        capacity, width = x_RCD.shape[1:]
        heads, d_head = self.heads, width // self.heads
        h_RCD = self.norm(x_RCD)
        w_q, w_kv, w_g = torch.split(self.qkvg.weight, [width, 2 * width, width])
        h_ND, row_N = h_RCD.flatten(0, 1)[slot_N], slot_N // capacity
        q_NHK = (h_ND @ w_q.T).view(-1, heads, d_head)
        k_NCHK, v_NCHK = (h_RCD @ w_kv.T).unflatten(2, (2, heads, d_head))[row_N].unbind(2)
        score_NHC = torch.einsum("nhk,nchk->nhc", q_NHK, k_NCHK) * d_head**-0.5
        bias_HNC = self._by_time(bucket_RCC.flatten(0, 1)[slot_N]) + self._by_distance(slot_N % capacity, capacity)
        p_NHC = (score_NHC + bias_HNC.transpose(0, 1)).softmax(-1)
        o_ND = torch.einsum("nhc,nchk->nhk", p_NHC, v_NCHK).flatten(1)
        y_ND = x_RCD.flatten(0, 1)[slot_N] + self.out(o_ND * silu(h_ND @ w_g.T))
        return self._feed(y_ND, 0.0, None)

    def _feed(self, x_XD: Tensor, rate: float, generator: Generator | None) -> Tensor:
        a_XF, b_XF = self.ffn(self.ffn_norm(x_XD)).chunk(2, -1)
        return x_XD + dropout(self.ffn_out(silu(a_XF) * b_XF), rate, generator)

    def _attend(self, x_RCD: Tensor, bucket_RCC: Tensor) -> Tensor:
        rows, capacity, width = x_RCD.shape
        heads, d_head = self.heads, width // self.heads
        q_HRCK, k_HRCK, v_HRCK, g_HRCK = self.qkvg(x_RCD).view(rows, capacity, 4, heads, d_head).permute(2, 3, 0, 1, 4)
        bias_HRCC = self._bias(bucket_RCC)
        score_HRCC = torch.baddbmm(
            bias_HRCC.flatten(0, 1), q_HRCK.flatten(0, 1), k_HRCK.flatten(0, 1).transpose(1, 2), alpha=d_head**-0.5
        )
        o_HRCK = torch.bmm(score_HRCC.softmax(-1), v_HRCK.flatten(0, 1)).view(heads, rows, capacity, d_head)
        gated_RCHK = (o_HRCK * silu(g_HRCK)).permute(1, 2, 0, 3)
        out_RCD: Tensor = self.out(gated_RCHK.reshape(rows, capacity, width))
        return out_RCD

    def _bias(self, bucket_RCC: Tensor) -> Tensor:
        capacity = bucket_RCC.shape[1]
        return self._by_time(bucket_RCC) + self._by_distance(torch.arange(capacity), capacity).unsqueeze(1)

    def _by_time(self, bucket: Tensor) -> Tensor:
        """A bias for each head (first) and pair; out of sight is far below any score."""
        table_HK = torch.cat([self.time, self.time.new_full((self.heads, 1), -1e9)], 1)
        return _take(table_HK, bucket.flatten()).view(self.heads, *bucket.shape)

    def _by_distance(self, place_N: Tensor, capacity: int) -> Tensor:
        """bias_HNC between queries at these places of a row and every key of it."""
        back_NC = (place_N.unsqueeze(1) - torch.arange(capacity)).clamp(0, self.distance.shape[1] - 1)
        return _take(self.distance, back_NC.flatten()).view(self.heads, *back_NC.shape)


class Backbone(nn.Module):
    """hidden_RCD from token_RCD: what the viewer is about to want, at the moment each position is asked about."""

    def __init__(self, dims: Dims, reach: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dims, reach) for _ in range(dims.blocks))
        self.norm = nn.LayerNorm(dims.width, bias=False)

    def forward(
        self, token_RCD: Tensor, bucket_RCC: Tensor, rate: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        x_RCD = token_RCD
        for block in self.blocks:
            x_RCD = block(x_RCD, bucket_RCC, rate, generator)
        hidden_RCD: Tensor = self.norm(x_RCD)
        return hidden_RCD

    def at(self, token_RCD: Tensor, bucket_RCC: Tensor, slot_N: Tensor) -> Tensor:
        """hidden_ND of these flat slots alone: the last block, which nothing else reads, is spared elsewhere."""
        *below, last = self.blocks
        x_RCD = token_RCD
        for block in below:
            x_RCD = block(x_RCD, bucket_RCC, 0.0, None)
        assert isinstance(last, Block)
        hidden_ND: Tensor = self.norm(last.at(x_RCD, bucket_RCC, slot_N))
        return hidden_ND
