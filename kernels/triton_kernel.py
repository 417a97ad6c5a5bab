"""Log-sum-exp over shared negatives on the GPU: two Triton kernels without atomics, deterministic.

d lse / d q is attention with keys = values = e. So the forward kernel keeps the accumulator of flash
attention (arXiv 2205.14135) and returns lse and that mean in one pass over the negatives. The
backward kernel recomputes p from lse and accumulates only d e. Each of its programs handles a block
of negatives and one split of the rows; the partial sums of the splits are added in a fixed order.

    x_ns = log2(e) (<q_n, e_s> + b_s)    -inf where neg_id_s == pos_id_n
    lse_n = ln 2 log2 sum_s 2^x_ns             p_ns = 2^(x_ns - log2(e) lse_n)
    d lse_n / d q_n = sum_s p_ns e_s     d e_s = sum_n g_n p_ns q_n      g: gradient of lse

Accidental hits are masked before the maximum is taken: subtracting them later would cancel digits if
a hit is the largest. The running maximum starts at a finite value, or a row with only hits would be
NaN. Tile sizes are a fixed table, since autotuning would change the order of the sums between runs.

Inputs are fp16 or bf16, with sums in fp32. fp32 inputs are correct but slow; with TRITON_INTERPRET=1
the kernels run on the CPU, for tests.

N rows (queries) · S shared negatives · P width of the scoring space, up to 256
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton import knobs

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
BACKWARD_PROGRAMS = 256  # desired size of the backward grid, about two programs per multiprocessor of a large GPU


class TileConfig(NamedTuple):
    block_n: int
    block_s: int
    num_warps: int
    num_stages: int


# By maximum width. Chosen so that no register spills in the loop on sm_80 and sm_90.
FORWARD_TILES = {64: TileConfig(128, 64, 8, 3), 128: TileConfig(128, 64, 8, 3), 256: TileConfig(64, 64, 8, 2)}
BACKWARD_TILES = {64: TileConfig(64, 128, 8, 3), 128: TileConfig(64, 128, 8, 3), 256: TileConfig(64, 64, 8, 2)}


@triton.jit  # type: ignore[untyped-decorator]
def _dot(a: tl.tensor, b: tl.tensor, UPCAST: tl.constexpr) -> tl.tensor:
    if UPCAST:  # the interpreter would multiply the bit patterns of bf16
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit  # type: ignore[untyped-decorator]
def _load_rows(ptr: tl.tensor, row: tl.tensor, rows: tl.tensor, P: tl.constexpr, BLOCK_P: tl.constexpr) -> tl.tensor:
    """Rows of a contiguous [rows, P] matrix, zero outside it. Offsets have 64 bits: rows * P can exceed 2^31."""
    column = tl.arange(0, BLOCK_P)
    inside = (row < rows)[:, None] & (column < P)[None, :]
    return tl.load(ptr + row.to(tl.int64)[:, None] * P + column[None, :], mask=inside, other=0.0)


@triton.jit(do_not_specialize=["N", "S"])  # type: ignore[untyped-decorator]
def forward_kernel(
    q_ptr: tl.tensor, e_ptr: tl.tensor, pos_ptr: tl.tensor, neg_ptr: tl.tensor, bias_ptr: tl.tensor,
    lse_ptr: tl.tensor, mean_ptr: tl.tensor, N: tl.tensor, S: tl.tensor,
    P: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_S: tl.constexpr, UPCAST: tl.constexpr,
) -> None:  # fmt: skip
    """One program handles a block of rows and all negatives."""
    row = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    q = _load_rows(q_ptr, row, N, P, BLOCK_P)
    pos = tl.load(pos_ptr + row, mask=row < N, other=0)
    peak = tl.full([BLOCK_N], -1e30, tl.float32)
    total = tl.zeros([BLOCK_N], tl.float32)
    mean = tl.zeros([BLOCK_N, BLOCK_P], tl.float32)
    for start in range(0, S, BLOCK_S):
        column = start + tl.arange(0, BLOCK_S)
        e = _load_rows(e_ptr, column, S, P, BLOCK_P)
        neg = tl.load(neg_ptr + column, mask=column < S, other=0)
        bias = tl.load(bias_ptr + column, mask=column < S, other=-float("inf")).to(tl.float32) * LOG2E
        x = _dot(q, tl.trans(e), UPCAST) * LOG2E + bias[None, :]
        x = tl.where(pos[:, None] == neg[None, :], -float("inf"), x)
        higher = tl.maximum(peak, tl.max(x, 1))
        p = tl.exp2(x - higher[:, None])
        shrink = tl.exp2(peak - higher)
        total = total * shrink + tl.sum(p, 1)
        mean = mean * shrink[:, None] + _dot(p.to(e.dtype), e, UPCAST)
        peak = higher
    full = total > 0
    total = tl.where(full, total, 1.0)
    tl.store(lse_ptr + row, tl.where(full, (peak + tl.log2(total)) * LN2, -float("inf")), mask=row < N)
    mean = mean / total[:, None]
    column = tl.arange(0, BLOCK_P)
    inside = (row < N)[:, None] & (column < P)[None, :]
    tl.store(mean_ptr + row.to(tl.int64)[:, None] * P + column[None, :], mean.to(q.dtype), mask=inside)


@triton.jit(do_not_specialize=["N", "S", "rows_per_split"])  # type: ignore[untyped-decorator]
def backward_kernel(
    q_ptr: tl.tensor, e_ptr: tl.tensor, pos_ptr: tl.tensor, neg_ptr: tl.tensor, bias_ptr: tl.tensor,
    lse_ptr: tl.tensor, slope_ptr: tl.tensor, partial_ptr: tl.tensor,
    N: tl.tensor, S: tl.tensor, rows_per_split: tl.tensor,
    P: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_S: tl.constexpr, UPCAST: tl.constexpr,
) -> None:  # fmt: skip
    """One program computes the gradient of a block of negatives from one split of the rows: partial [split, S, P]."""
    column = tl.program_id(0) * BLOCK_S + tl.arange(0, BLOCK_S)
    split = tl.program_id(1)
    e = _load_rows(e_ptr, column, S, P, BLOCK_P)
    neg = tl.load(neg_ptr + column, mask=column < S, other=0)
    bias = tl.load(bias_ptr + column, mask=column < S, other=-float("inf")).to(tl.float32) * LOG2E
    grad = tl.zeros([BLOCK_S, BLOCK_P], tl.float32)
    first = split * rows_per_split
    for start in range(first, tl.minimum(first + rows_per_split, N), BLOCK_N):
        row = start + tl.arange(0, BLOCK_N)
        q = _load_rows(q_ptr, row, N, P, BLOCK_P)
        pos = tl.load(pos_ptr + row, mask=row < N, other=0)
        lse = tl.load(lse_ptr + row, mask=row < N, other=float("inf")) * LOG2E
        slope = tl.load(slope_ptr + row, mask=row < N, other=0.0)
        lse = tl.where(lse == -float("inf"), float("inf"), lse)  # a row without negatives: p = 2^(-inf), not NaN
        x = _dot(e, tl.trans(q), UPCAST) * LOG2E + bias[:, None]
        x = tl.where(neg[:, None] == pos[None, :], -float("inf"), x)
        weight = tl.exp2(x - lse[None, :]) * slope[None, :]
        grad += _dot(weight.to(q.dtype), q, UPCAST)
    offset = split.to(tl.int64) * S + column
    dim = tl.arange(0, BLOCK_P)
    inside = (column < S)[:, None] & (dim < P)[None, :]
    tl.store(partial_ptr + offset[:, None] * P + dim[None, :], grad, mask=inside)


def tile_config(table: dict[int, TileConfig], width: int) -> tuple[TileConfig, int]:
    """The table's entry for vectors of this width, and the padded width, a power of two.

    Raises ValueError if the width is not supported.
    """
    if width > max(table):
        raise ValueError(f"The GPU kernels support widths up to {max(table)}, not {width}: use a narrower head.")
    return table[min(limit for limit in table if width <= limit)], max(16, triton.next_power_of_2(width))


def _forward(q_NP: Tensor, e_SP: Tensor, ids: tuple[Tensor, Tensor], bias_S: Tensor) -> tuple[Tensor, ...]:
    (rows, width), size = q_NP.shape, len(e_SP)
    tile, block_p = tile_config(FORWARD_TILES, width)
    lse_N, mean_NP = q_NP.new_empty(rows, dtype=torch.float32), torch.empty_like(q_NP)
    forward_kernel[(triton.cdiv(rows, tile.block_n),)](
        q_NP, e_SP, *ids, bias_S, lse_N, mean_NP, rows, size,
        P=width, BLOCK_P=block_p, BLOCK_N=tile.block_n, BLOCK_S=tile.block_s, UPCAST=knobs.runtime.interpret,
        num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    return lse_N, mean_NP


def _grad_negatives(
    q_NP: Tensor, e_SP: Tensor, ids: tuple[Tensor, Tensor], bias_S: Tensor, lse_N: Tensor, slope_N: Tensor
) -> Tensor:
    (rows, width), size = q_NP.shape, len(e_SP)
    if not rows or not size:
        return torch.zeros_like(e_SP)
    tile, block_p = tile_config(BACKWARD_TILES, width)
    columns, blocks = triton.cdiv(size, tile.block_s), triton.cdiv(rows, tile.block_n)
    rows_per_split = triton.cdiv(blocks, min(blocks, triton.cdiv(BACKWARD_PROGRAMS, columns))) * tile.block_n
    splits = triton.cdiv(rows, rows_per_split)
    partials = q_NP.new_empty(splits, size, width, dtype=torch.float32)  # [split, S, P]
    backward_kernel[(columns, splits)](
        q_NP, e_SP, *ids, bias_S, lse_N, slope_N, partials, rows, size, rows_per_split,
        P=width, BLOCK_P=block_p, BLOCK_N=tile.block_n, BLOCK_S=tile.block_s, UPCAST=knobs.runtime.interpret,
        num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    return partials.sum(dim=0).to(e_SP.dtype)


class _NegLse(torch.autograd.Function):
    """lse_N = _NegLse.apply(q_NP, e_SP, pos_id_N, neg_id_S, bias_S), fp32; gradients for q and e."""

    @staticmethod
    def forward(ctx: Any, q_NP: Tensor, e_SP: Tensor, pos_id_N: Tensor, neg_id_S: Tensor, bias_S: Tensor) -> Tensor:
        q_NP, e_SP = q_NP.contiguous(), e_SP.to(q_NP.dtype).contiguous()
        ids = pos_id_N.contiguous(), neg_id_S.contiguous()
        lse_N, mean_NP = _forward(q_NP, e_SP, ids, bias_S.contiguous())
        ctx.save_for_backward(q_NP, e_SP, *ids, bias_S.contiguous(), lse_N, mean_NP)
        return lse_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_N: Tensor) -> tuple[Tensor | None, ...]:
        q_NP, e_SP, pos_id_N, neg_id_S, bias_S, lse_N, mean_NP = ctx.saved_tensors
        grad_q_NP = (mean_NP * slope_N[:, None]).to(q_NP.dtype) if ctx.needs_input_grad[0] else None
        grad_e_SP = None
        if ctx.needs_input_grad[1]:
            grad_e_SP = _grad_negatives(q_NP, e_SP, (pos_id_N, neg_id_S), bias_S, lse_N, slope_N)
        return grad_q_NP, grad_e_SP, None, None, None


def neg_lse(q_NP: Tensor, e_SP: Tensor, pos_id_N: Tensor, neg_id_S: Tensor, bias_S: Tensor) -> Tensor:
    """`kernels.sampled_softmax.neg_lse`, in fp32 [N]."""
    lse_N: Tensor = _NegLse.apply(q_NP, e_SP, pos_id_N, neg_id_S, bias_S)  # type: ignore[no-untyped-call]
    return lse_N
