"""The sampled softmax loss in chunks of rows, in its simple form: the baseline that `kernels.cpu` is compared with.

It stores no N x S table and has a written-out backward pass, which computes each chunk of logits again. So it takes
four matrix products, where the kernel takes three; it compares all ids for accidental hits; and it allocates new memory
for each chunk.

N rows (queries) · S shared negatives · P width · C rows of a chunk
"""

from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

CHUNK_ROWS: Final = 256  # with 4096 negatives, a chunk has a million logits


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_NP: Tensor, e_pos_NP: Tensor, e_SP: Tensor, pos_N: Tensor, neg_S: Tensor, bias_S: Tensor
    ) -> Tensor:
        lse_N, mean_NP = q_NP.new_empty(len(q_NP)), torch.empty_like(q_NP)
        for start in range(0, len(q_NP), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            logit_CS = _logits(q_NP[rows], e_SP, pos_N[rows], neg_S, bias_S)
            lse_N[rows] = logit_CS.logsumexp(1)
            mean_NP[rows] = (logit_CS - lse_N[rows, None]).exp() @ e_SP
        positive_N = (q_NP * e_pos_NP).sum(1)
        ctx.save_for_backward(q_NP, e_pos_NP, e_SP, pos_N, neg_S, bias_S, lse_N, mean_NP, positive_N)
        return functional.softplus(lse_N - positive_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        q_NP, e_pos_NP, e_SP, pos_N, neg_S, bias_S, lse_N, mean_NP, positive_N = ctx.saved_tensors
        slope_N1 = (torch.sigmoid(lse_N - positive_N) * grad_N)[:, None]
        grad_SP = torch.zeros_like(e_SP)
        for start in range(0, len(q_NP), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            logit_CS = _logits(q_NP[rows], e_SP, pos_N[rows], neg_S, bias_S)
            grad_SP += (logit_CS - lse_N[rows, None]).exp().T @ (slope_N1[rows] * q_NP[rows])
        return slope_N1 * (mean_NP - e_pos_NP), -slope_N1 * q_NP, grad_SP, None, None, None


def _logits(q_CP: Tensor, e_SP: Tensor, pos_C: Tensor, neg_S: Tensor, bias_S: Tensor) -> Tensor:
    return torch.addmm(bias_S, q_CP, e_SP.T).masked_fill_(pos_C[:, None] == neg_S, float("-inf"))


def sampled_softmax_loss(
    q_NP: Tensor, e_pos_NP: Tensor, e_neg_SP: Tensor, pos_id_N: Tensor, neg_id_S: Tensor, log_expected_S: Tensor
) -> Tensor:
    """Like `kernels.sampled_softmax.sampled_softmax_loss` without weights; each row must have a negative."""
    loss_N: Tensor = _ChunkedLoss.apply(q_NP, e_pos_NP, e_neg_SP, pos_id_N, neg_id_S, -log_expected_S)  # type: ignore[no-untyped-call]
    return loss_N
