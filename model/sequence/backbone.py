"""Backbone: a causal stack of gated attention blocks with relative time bias.

Each pair of query and key has two attention biases. One is by the logarithm of the time between the key's event and the
query time (in training: the time of the next event). The other is by their distance in events. Each block has softmax
attention and a SwiGLU layer, both gated.

Windows of different lengths are packed into few rows of one capacity (first fit decreasing). Almost no position is
padding, and no tensor operation is repeated per user. A query sees only earlier keys of its own window.
Sources: HSTU (arXiv 2402.17152: time and position bias, query time), LiGR and eSASRec (gates), arXiv 2605.23312
(sizes exclude embeddings and output head).

B windows · R packed rows · T token positions of a row · X = R * T flat positions · N selected positions · D width
J heads · O width of a head · W width of the feed-forward layer
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn.functional import silu

from model.settings import BackboneSize

TIME_BUCKETS: Final = 48  # the last one starts at about 90 years
BUCKETS_PER_OCTAVE: Final = 1.5  # of a time difference in seconds; not measured
_LN_2: Final = 0.6931472  # more digits would move the borders of the buckets that weights were trained for
MASKED_BUCKET: Final = TIME_BUCKETS  # of a key that the query must not attend to


@dataclass(frozen=True)
class PackedLayout:
    """Positions of the windows' tokens in the packed rows."""

    start_B: NDArray[np.int64]  # flat position of each window's first token
    rows: int
    capacity: int  # positions of a row
    window_RT: Tensor  # int64, the window that a position belongs to; -1 for padding


def pack(lengths_B: NDArray[np.int64]) -> PackedLayout:
    """Pack windows of `lengths_B` tokens (each at least 1) into rows as long as the longest: first fit decreasing."""
    capacity = int(lengths_B.max())
    free_B, start_B = np.full(len(lengths_B), capacity), np.zeros(len(lengths_B), np.int64)  # at most B rows
    for window in np.argsort(-lengths_B, kind="stable"):
        row = int(np.argmax(free_B >= lengths_B[window]))
        start_B[window] = row * capacity + capacity - free_B[row]
        free_B[row] -= lengths_B[window]
    rows = int((free_B < capacity).sum())
    window_X = np.full(rows * capacity, -1)
    window_X[flat_positions(start_B, lengths_B)] = np.repeat(np.arange(len(lengths_B)), lengths_B)
    return PackedLayout(start_B, rows, capacity, torch.from_numpy(window_X.reshape(rows, capacity)))


def flat_positions(start_B: NDArray[np.int64], lengths_B: NDArray[np.int64]) -> NDArray[np.int64]:
    """The flat positions of all tokens, window by window."""
    first = np.cumsum(lengths_B) - lengths_B
    return np.repeat(start_B - first, lengths_B) + np.arange(int(lengths_B.sum()))


def time_bucket(gap: Tensor) -> Tensor:
    """The logarithmic bucket of a time difference in ms; a negative one counts as zero."""
    seconds = gap.clamp(min=0).to(torch.float32).mul_(0.001)
    return seconds.log1p_().mul_(BUCKETS_PER_OCTAVE / _LN_2).clamp_(max=TIME_BUCKETS - 1).to(torch.int64)


def pair_buckets(layout: PackedLayout, time_RT: Tensor, query_time_RT: Tensor) -> Tensor:
    """bucket_RTT of (query, key): time from the key's event to the query time; MASKED_BUCKET for a masked key."""
    bucket_RTT = time_bucket(query_time_RT.unsqueeze(2) - time_RT.unsqueeze(1))
    same_RTT = layout.window_RT.unsqueeze(2) == layout.window_RT.unsqueeze(1)
    return bucket_RTT.masked_fill_(~same_RTT.tril_(), MASKED_BUCKET)


def dropout(x: Tensor, rate: float, generator: Generator | None) -> Tensor:
    """Dropout with the rate rounded to 1/256; without a generator, return `x` unchanged.

    One random byte per element is five times faster than one random float per element.
    """
    keep_256ths = round(256 * (1 - rate))
    if generator is None or keep_256ths == 256:
        return x
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    keep = words.view(torch.uint8)[: x.numel()] < keep_256ths
    return x * keep.view(x.shape).to(x.dtype).mul_(256 / keep_256ths)


@njit(cache=True)
def _sum_by_index(index_X: NDArray[np.int64], value_JX: NDArray[Any], sums: NDArray[Any]) -> None:
    """Sum values by index into `sums`, [J, table entries].

    Four independent accumulators hide the latency of dependent additions.
    """
    unrolled = index_X.size - index_X.size % 4
    for j in range(value_JX.shape[0]):
        part = np.zeros((4, sums.shape[1]), value_JX.dtype)
        for x in range(0, unrolled, 4):
            part[0, index_X[x]] += value_JX[j, x]
            part[1, index_X[x + 1]] += value_JX[j, x + 1]
            part[2, index_X[x + 2]] += value_JX[j, x + 2]
            part[3, index_X[x + 3]] += value_JX[j, x + 3]
        for x in range(unrolled, index_X.size):
            part[0, index_X[x]] += value_JX[j, x]
        sums[j] = part[0] + part[1] + (part[2] + part[3])


class _BiasLookup(torch.autograd.Function):
    """`table[:, index_X]` of a bias table [J, entries].

    PyTorch's own backward of this gather is a hundred times slower than `_sum_by_index`.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, index_X: Tensor) -> Tensor:
        ctx.save_for_backward(index_X)
        ctx.size = table.shape
        return table.index_select(1, index_X)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (index_X,) = ctx.saved_tensors
        grad = grads[0].new_empty(ctx.size)
        _sum_by_index(index_X.numpy(), grads[0].contiguous().numpy(), grad.numpy())
        return grad, None


def _look_up_bias(table: Tensor, index_X: Tensor) -> Tensor:
    bias_JX: Tensor = _BiasLookup.apply(table, index_X)  # type: ignore[no-untyped-call]
    return bias_JX


class Block(nn.Module):
    """`x + Wo(silu(g) * attention(x))`, then `x + W2(silu(a) * b)`: both gated, both pre-norm.

    `max_distance` is the number of distances in events that have a bias of their own; larger ones share the last.
    """

    def __init__(self, size: BackboneSize, max_distance: int) -> None:
        super().__init__()
        width = size.width
        self.heads = size.heads
        self.norm = nn.LayerNorm(width, bias=False)
        self.qkvg = nn.Linear(width, 4 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.time = nn.Parameter(torch.zeros(size.heads, TIME_BUCKETS))
        self.distance = nn.Parameter(torch.zeros(size.heads, max_distance))
        self.ffn_norm = nn.LayerNorm(width, bias=False)
        self.ffn = nn.Linear(width, 4 * width, bias=False)
        self.ffn_out = nn.Linear(2 * width, width, bias=False)

    def forward(self, x_RTD: Tensor, bucket_RTT: Tensor, rate: float, generator: Generator | None) -> Tensor:
        x_RTD = x_RTD + dropout(self._attend(self.norm(x_RTD), bucket_RTT), rate, generator)
        return self._feed_forward(x_RTD, rate, generator)

    def forward_at(self, x_RTD: Tensor, bucket_RTT: Tensor, position_N: Tensor) -> Tensor:
        """y_ND at the given flat positions only: serving needs only the last token of each window."""
        capacity, width = x_RTD.shape[1:]
        heads, d_head = self.heads, width // self.heads
        h_RTD = self.norm(x_RTD)
        w_q, w_kv, w_g = torch.split(self.qkvg.weight, [width, 2 * width, width])
        h_ND, row_N = h_RTD.flatten(0, 1)[position_N], position_N // capacity
        q_NJO = (h_ND @ w_q.T).view(-1, heads, d_head)
        k_NTJO, v_NTJO = (h_RTD @ w_kv.T).unflatten(2, (2, heads, d_head))[row_N].unbind(2)
        score_NJT = torch.einsum("njo,ntjo->njt", q_NJO, k_NTJO) * d_head**-0.5
        time_bias_JNT = self._time_bias(bucket_RTT.flatten(0, 1)[position_N])
        bias_JNT = time_bias_JNT + self._distance_bias(position_N % capacity, capacity)
        p_NJT = (score_NJT + bias_JNT.transpose(0, 1)).softmax(-1)
        o_ND = torch.einsum("njt,ntjo->njo", p_NJT, v_NTJO).flatten(1)
        y_ND = x_RTD.flatten(0, 1)[position_N] + self.out(o_ND * silu(h_ND @ w_g.T))
        return self._feed_forward(y_ND, 0.0, None)

    def _feed_forward(self, x_XD: Tensor, rate: float, generator: Generator | None) -> Tensor:
        a_XW, b_XW = self.ffn(self.ffn_norm(x_XD)).chunk(2, -1)
        return x_XD + dropout(self.ffn_out(silu(a_XW) * b_XW), rate, generator)

    def _attend(self, x_RTD: Tensor, bucket_RTT: Tensor) -> Tensor:
        rows, capacity, width = x_RTD.shape
        heads, d_head = self.heads, width // self.heads
        q_JRTO, k_JRTO, v_JRTO, g_JRTO = self.qkvg(x_RTD).view(rows, capacity, 4, heads, d_head).permute(2, 3, 0, 1, 4)
        bias_JRTT = self._bias(bucket_RTT)
        score_JRTT = torch.baddbmm(
            bias_JRTT.flatten(0, 1), q_JRTO.flatten(0, 1), k_JRTO.flatten(0, 1).transpose(1, 2), alpha=d_head**-0.5
        )
        o_JRTO = torch.bmm(score_JRTT.softmax(-1), v_JRTO.flatten(0, 1)).view(heads, rows, capacity, d_head)
        gated_RTJO = (o_JRTO * silu(g_JRTO)).permute(1, 2, 0, 3)
        out_RTD: Tensor = self.out(gated_RTJO.reshape(rows, capacity, width))
        return out_RTD

    def _bias(self, bucket_RTT: Tensor) -> Tensor:
        capacity = bucket_RTT.shape[1]
        return self._time_bias(bucket_RTT) + self._distance_bias(torch.arange(capacity), capacity).unsqueeze(1)

    def _time_bias(self, bucket: Tensor) -> Tensor:
        """The bias of each head (first dimension) and pair; a masked key gets a value far below any score."""
        table = torch.cat([self.time, self.time.new_full((self.heads, 1), -1e9)], 1)
        return _look_up_bias(table, bucket.flatten()).view(self.heads, *bucket.shape)

    def _distance_bias(self, position_N: Tensor, capacity: int) -> Tensor:
        """bias_JNT between queries at these positions of a row and every key of the row."""
        distance_NT = (position_N.unsqueeze(1) - torch.arange(capacity)).clamp(0, self.distance.shape[1] - 1)
        return _look_up_bias(self.distance, distance_NT.flatten()).view(self.heads, *distance_NT.shape)


class Backbone(nn.Module):
    """hidden_RTD from token_RTD: the user's state at the query time of each position."""

    def __init__(self, size: BackboneSize, max_distance: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(size, max_distance) for _ in range(size.blocks))
        self.norm = nn.LayerNorm(size.width, bias=False)

    def forward(
        self, token_RTD: Tensor, bucket_RTT: Tensor, rate: float = 0.0, generator: Generator | None = None
    ) -> Tensor:
        x_RTD = token_RTD
        for block in self.blocks:
            x_RTD = block(x_RTD, bucket_RTT, rate, generator)
        hidden_RTD: Tensor = self.norm(x_RTD)
        return hidden_RTD

    def forward_at(self, token_RTD: Tensor, bucket_RTT: Tensor, position_N: Tensor) -> Tensor:
        """hidden_ND at the given flat positions, without dropout; the last block skips all other positions."""
        *first_blocks, last = self.blocks
        x_RTD = token_RTD
        for block in first_blocks:
            x_RTD = block(x_RTD, bucket_RTT, 0.0, None)
        assert isinstance(last, Block)
        hidden_ND: Tensor = self.norm(last.forward_at(x_RTD, bucket_RTT, position_N))
        return hidden_ND
