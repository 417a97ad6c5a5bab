"""Sampled softmax loss over shared negatives: the public functions, which select an implementation.

    loss_n = -log( exp(z_n) / (exp(z_n) + sum_s exp(<q_n, e_s> - log(n q_s))) ),   z_n = <q_n, e_pos_n>
           = softplus(lse_n - z_n)

With n negatives drawn from q and the row's own positive masked, each title except the positive is
counted once in expectation. The sum is therefore an unbiased estimate of the full softmax's sum over
the other titles. The positive is never sampled and needs no correction. softplus keeps tiny losses
exact. The gradient of lse is an attention with keys = values = e, which all implementations use:
`cpu` in blocks of rows, `triton_kernel` on CUDA, `reference` in plain PyTorch for the tests.

Several horizons are repeated rows that share the negatives. A learned temperature is folded into q.
The bias and the weights are data, not parameters, and get no gradient.

N rows (queries) · S shared negatives · P width of the scoring space
"""

from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional

from kernels import cpu


def neg_lse(q_NP: Tensor, e_SP: Tensor, pos_id_N: Tensor, neg_id_S: Tensor, bias_S: Tensor) -> Tensor:
    """log sum_s exp(<q_n, e_s> + bias_s) over the negatives s with neg_id_s != pos_id_n, in nats [N].

    The row's positive is not part of the sum. A row without a negative gives -inf and no gradient.
    Gradients: q and e. pos_id and neg_id have the same integer type.
    """
    if _uses_triton(q_NP):
        from kernels import triton_kernel

        return triton_kernel.neg_lse(q_NP, e_SP, pos_id_N, neg_id_S, bias_S)
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
    """The loss of each row in nats [N], times its weight; the caller folds the temperature into q.

    log_expected_s = log(n q_s), the log of the expected number of draws of title s among n negatives. A
    title drawn k times may occur once with log(n q_s / k): the same loss from fewer columns.
    Gradients: q, e_pos and e_neg. The CPU path computes them in the forward pass, so they are cheapest
    if the rows are only summed or averaged with weight_N.
    """
    if _uses_triton(q_NP):
        lse_N = neg_lse(q_NP, e_neg_SP, pos_id_N, neg_id_S, -log_expected_S)
        loss_N = functional.softplus(
            lse_N - (q_NP * e_pos_NP).sum(dim=1, dtype=torch.float32), threshold=cpu.SOFTPLUS_THRESHOLD
        )
        return loss_N if weight_N is None else loss_N * weight_N
    if weight_N is None:
        weight_N = q_NP.new_ones(len(q_NP))
    return cpu.sampled_softmax_loss(q_NP, e_pos_NP, e_neg_SP, pos_id_N, neg_id_S, -log_expected_S, weight_N)


def _uses_triton(q_NP: Tensor) -> bool:
    return q_NP.is_cuda and q_NP.dtype in (torch.float16, torch.bfloat16) and find_spec("triton") is not None
