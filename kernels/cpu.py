"""Sampled softmax loss on the CPU: blocks of rows, with explicit gradients.

The N x S table of logits is never materialized: a block of rows is multiplied, turned into
probabilities in place, used and overwritten. A block of about a million floats fits the cache.

    lse_n = log sum_s exp(<q_n, e_s> + b_s)      over s with neg_id_s != pos_id_n
    p_ns  = exp(<q_n, e_s> + b_s - lse_n)
    d lse_n / d q_n = sum_s p_ns e_s             d lse_n / d e_s = p_ns q_n

The slope d loss / d lse of the loss softplus(lse_n - <q_n, e_pos_n>) is known as soon as lse is
known. So the forward pass computes all gradients while p is available: three matrix products instead
of four. The backward pass recomputes p for d e_s only if its incoming gradients differ between rows.

An accidental hit is a negative that is the row's own positive. Runs on any device, in fp32 or fp64.

N rows (queries) · S shared negatives · P width of the scoring space · C rows of a block
X accidental hits of a block, flattened
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

BLOCK_LOGITS = 1 << 20  # logits of a block; 0.5 to 2 million are equally fast, more do not fit the cache

SOFTPLUS_THRESHOLD = 40.0  # above it, softplus(x) equals x in fp64


class _Negatives(NamedTuple):
    """The negatives, and the accidental hits of each row among them."""

    vectors: Tensor  # [S, P]
    bias: Tensor  # [S]
    order: Tensor  # [S], sorts the negatives by id
    hit_start: Tensor  # [N], index of the row's first hit in that order
    hit_count: Tensor  # [N], number of the row's hits


def _negatives(e_SP: Tensor, pos_id_N: Tensor, neg_id_S: Tensor, bias_S: Tensor) -> _Negatives:
    sorted_S, order_S = neg_id_S.sort()
    first_N = torch.searchsorted(sorted_S, pos_id_N)
    count_N = torch.searchsorted(sorted_S, pos_id_N, right=True) - first_N
    return _Negatives(e_SP, bias_S.to(e_SP.dtype), order_S, first_N, count_N)


def _mask_hits_(logit_CS: Tensor, negatives: _Negatives, rows: slice) -> None:
    """Set the logits of accidental hits to -inf. Hits are rare, so they are indexed instead of compared in a table."""
    count_C = negatives.hit_count[rows]
    row_X = torch.repeat_interleave(count_C)
    nth_X = torch.arange(len(row_X), device=row_X.device) - (count_C.cumsum(0) - count_C)[row_X]
    logit_CS[row_X, negatives.order[negatives.hit_start[rows][row_X] + nth_X]] = float("-inf")


def _softmax_(logit_CS: Tensor) -> Tensor:
    """Turn logits into probabilities in place and return their log-sum-exp [C].

    The log-sum-exp follows from the probability of the largest logit, which saves two passes over the
    block. A row without a negative gets probability zero everywhere and a log-sum-exp of -inf.
    """
    peak_C = logit_CS.amax(dim=1)
    torch.softmax(logit_CS, dim=1, out=logit_CS)
    empty_C = peak_C.isneginf()
    if empty_C.any():
        logit_CS[empty_C] = 0.0
    return torch.where(empty_C, peak_C, peak_C - logit_CS.amax(dim=1).log())


def _blocks(q_NP: Tensor, negatives: _Negatives) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield blocks of rows with p [C, S] and lse [C]; the next block overwrites p. No block without negatives."""
    size = len(negatives.vectors)
    if size == 0:
        return
    step = max(1, min(len(q_NP), BLOCK_LOGITS // size))
    buffer_CS = q_NP.new_empty(step, size)
    for start in range(0, len(q_NP), step):
        rows = slice(start, min(start + step, len(q_NP)))
        p_CS = buffer_CS[: rows.stop - start]
        torch.addmm(negatives.bias, q_NP[rows], negatives.vectors.T, out=p_CS)
        _mask_hits_(p_CS, negatives, rows)
        yield rows, p_CS, _softmax_(p_CS)


def _grad_negatives(q_NP: Tensor, negatives: _Negatives, slope_N: Tensor) -> Tensor:
    """sum_n slope_n p_ns q_n [S, P], with p recomputed."""
    grad_SP = torch.zeros_like(negatives.vectors)
    for rows, p_CS, _ in _blocks(q_NP, negatives):
        grad_SP.addmm_(p_CS.T, q_NP[rows] * slope_N[rows, None])
    return grad_SP


class _NegLse(torch.autograd.Function):
    """lse_N = _NegLse.apply(q_NP, e_SP, pos_id_N, neg_id_S, bias_S); gradients for q and e."""

    @staticmethod
    def forward(ctx: Any, q_NP: Tensor, e_SP: Tensor, pos_id_N: Tensor, neg_id_S: Tensor, bias_S: Tensor) -> Tensor:
        negatives = _negatives(e_SP, pos_id_N, neg_id_S, bias_S)
        lse_N = q_NP.new_full((len(q_NP),), float("-inf"))
        mean_NP = torch.zeros_like(q_NP) if ctx.needs_input_grad[0] else None
        for rows, p_CS, lse_C in _blocks(q_NP, negatives):
            lse_N[rows] = lse_C
            if mean_NP is not None:
                torch.mm(p_CS, e_SP, out=mean_NP[rows])
        ctx.save_for_backward(q_NP, mean_NP, *negatives)
        return lse_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_N: Tensor) -> tuple[Tensor | None, ...]:
        q_NP, mean_NP, *negatives = ctx.saved_tensors
        grad_q_NP = mean_NP * slope_N[:, None] if ctx.needs_input_grad[0] else None
        grad_e_SP = _grad_negatives(q_NP, _Negatives(*negatives), slope_N) if ctx.needs_input_grad[1] else None
        return grad_q_NP, grad_e_SP, None, None, None


class _SampledSoftmax(torch.autograd.Function):
    """loss_N = _SampledSoftmax.apply(q_NP, e_pos_NP, e_neg_SP, pos_id_N, neg_id_S, bias_S, weight_N).

    loss_n = weight_n softplus(lse_n - <q_n, e_pos_n>); gradients for q, e_pos and e_neg.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q_NP: Tensor,
        e_pos_NP: Tensor,
        e_neg_SP: Tensor,
        pos_id_N: Tensor,
        neg_id_S: Tensor,
        bias_S: Tensor,
        weight_N: Tensor,
    ) -> Tensor:
        negatives = _negatives(e_neg_SP, pos_id_N, neg_id_S, bias_S)
        positive_N = (q_NP * e_pos_NP).sum(dim=1)
        loss_N, slope_N = torch.zeros_like(positive_N), torch.zeros_like(positive_N)
        mean_NP = torch.zeros_like(q_NP) if ctx.needs_input_grad[0] else None
        grad_SP = torch.zeros_like(e_neg_SP) if ctx.needs_input_grad[2] else None
        for rows, p_CS, lse_C in _blocks(q_NP, negatives):
            margin_C = lse_C - positive_N[rows]
            loss_N[rows] = functional.softplus(margin_C, threshold=SOFTPLUS_THRESHOLD) * weight_N[rows]
            slope_N[rows] = torch.sigmoid(margin_C) * weight_N[rows]
            if mean_NP is not None:
                torch.mm(p_CS, e_neg_SP, out=mean_NP[rows])
            if grad_SP is not None:
                grad_SP.addmm_(p_CS.T, q_NP[rows] * slope_N[rows, None])
        ctx.save_for_backward(q_NP, e_pos_NP, mean_NP, grad_SP, slope_N, *negatives)
        return loss_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        q_NP, e_pos_NP, mean_NP, grad_SP, slope_N, *negatives = ctx.saved_tensors
        slope_N1 = (slope_N * grad_N)[:, None]
        grad_q_NP = slope_N1 * (mean_NP - e_pos_NP) if ctx.needs_input_grad[0] else None
        grad_pos_NP = -slope_N1 * q_NP if ctx.needs_input_grad[1] else None
        if grad_SP is None or not len(grad_N):
            grad_e_SP = grad_SP
        elif (grad_N == grad_N[0]).all():  # a sum or a mean over rows: scale the gradient of the forward pass
            grad_e_SP = grad_SP * grad_N[0]
        else:
            grad_e_SP = _grad_negatives(q_NP, _Negatives(*negatives), slope_N1[:, 0])
        return grad_q_NP, grad_pos_NP, grad_e_SP, None, None, None, None


def neg_lse(q_NP: Tensor, e_SP: Tensor, pos_id_N: Tensor, neg_id_S: Tensor, bias_S: Tensor) -> Tensor:
    """`kernels.sampled_softmax.neg_lse`."""
    lse_N: Tensor = _NegLse.apply(q_NP, e_SP, pos_id_N, neg_id_S, bias_S)  # type: ignore[no-untyped-call]
    return lse_N


def sampled_softmax_loss(
    q_NP: Tensor,
    e_pos_NP: Tensor,
    e_neg_SP: Tensor,
    pos_id_N: Tensor,
    neg_id_S: Tensor,
    bias_S: Tensor,
    weight_N: Tensor,
) -> Tensor:
    """`kernels.sampled_softmax.sampled_softmax_loss`, with the bias of the negatives and a weight for each row."""
    inputs = q_NP, e_pos_NP, e_neg_SP, pos_id_N, neg_id_S, bias_S, weight_N
    loss_N: Tensor = _SampledSoftmax.apply(*inputs)  # type: ignore[no-untyped-call]
    return loss_N
