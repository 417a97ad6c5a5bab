"""Sampled softmax over shared negatives, the one thing here that must be fast.

    loss_n = -log( exp(z_n) / (exp(z_n) + sum_s exp(<q_n, e_s> - log(n q_s))) ),   z_n = <q_n, e_pos_n>
           = softplus(lse_n - z_n)

With n negatives drawn from q and the row's own positive masked among them, each title but the
positive is counted once in expectation, so the sum is unbiased for the full softmax's sum over the
other titles; the positive itself is never sampled and takes no correction. softplus keeps tiny
losses exact. The gradient of lse is an attention with keys = values = e, which is how the paths
work: `cpu` in blocks of rows, `triton_kernel` on CUDA, `reference` in the plain form for the tests.

Several horizons are repeated rows that share the negatives. A learned temperature is folded into q.
Neither the bias nor the weights get a gradient: both are data, not parameters.

Shapes: N rows (queries), S shared negatives, P width.
"""

from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional

from kernels import cpu


def neg_lse(
    q_NP: Tensor, e_SP: Tensor, pos_id_N: Tensor, neg_id_S: Tensor, bias_S: Tensor, tau: float | Tensor = 1.0
) -> Tensor:
    """log sum_s exp(<q_n, e_s> / tau + bias_s) over the negatives s with neg_id_s != pos_id_n, in nats [N].

    The row's positive is outside the sum. A row with no negative left gives -inf and no gradient.
    Gradients: q, e, and tau where it is a tensor. pos_id and neg_id are integers of one type.
    """
    if _by_triton(q_NP) and not isinstance(tau, Tensor):
        from kernels import triton_kernel

        return triton_kernel.neg_lse(q_NP, e_SP, pos_id_N, neg_id_S, bias_S, tau)
    if isinstance(tau, Tensor) or tau != 1.0:
        return neg_lse(q_NP / tau, e_SP, pos_id_N, neg_id_S, bias_S)
    return cpu.neg_lse(q_NP, e_SP, pos_id_N, neg_id_S, bias_S)


def sampled_softmax_loss(
    q_NP: Tensor,
    e_pos_NP: Tensor,
    e_neg_SP: Tensor,
    pos_id_N: Tensor,
    neg_id_S: Tensor,
    log_expected_S: Tensor,
    weight_N: Tensor | None = None,
) -> Tensor:
    """The loss of each row in nats [N], times its weight; the temperature is folded into q by the caller.

    log_expected_s = log(n q_s), the log of how often title s is expected among the n negatives drawn. A
    title drawn k times may stand there once with log(n q_s / k): the same loss from fewer columns.
    Gradients: q, e_pos and e_neg. They are cheapest when the rows are summed or averaged with nothing
    but weight_N between them, since the CPU path makes them in the forward pass.
    """
    if _by_triton(q_NP):
        lse_N = neg_lse(q_NP, e_neg_SP, pos_id_N, neg_id_S, -log_expected_S)
        loss_N = functional.softplus(lse_N - (q_NP * e_pos_NP).sum(dim=1, dtype=torch.float32), threshold=cpu.EXACT)
        return loss_N if weight_N is None else loss_N * weight_N
    if weight_N is None:
        weight_N = q_NP.new_ones(len(q_NP))
    return cpu.sampled_softmax_loss(q_NP, e_pos_NP, e_neg_SP, pos_id_N, neg_id_S, -log_expected_S, weight_N)


def _by_triton(q_NP: Tensor) -> bool:
    return q_NP.is_cuda and q_NP.dtype in (torch.float16, torch.bfloat16) and find_spec("triton") is not None
