"""Reference implementation of the loss in plain PyTorch, for tests and as the baseline of the benchmark.

Each function builds the full N x S table of logits and lets autograd differentiate it, in any
precision including fp64. This is slow and needs much memory, but it is easy to verify.

N rows (queries) · S shared negatives · P width of the scoring space
"""

import torch
from torch import Tensor
from torch.nn import functional


def _logits(q_NP: Tensor, e_SP: Tensor, pos_id_N: Tensor, neg_id_S: Tensor, bias_S: Tensor) -> Tensor:
    """Logits of the negatives [N, S]; -inf where a negative is the row's own positive."""
    hit_NS = pos_id_N[:, None] == neg_id_S[None, :]
    return (q_NP @ e_SP.T + bias_S).masked_fill(hit_NS, float("-inf"))


def neg_lse(q_NP: Tensor, e_SP: Tensor, pos_id_N: Tensor, neg_id_S: Tensor, bias_S: Tensor) -> Tensor:
    """log sum_s exp(<q_n, e_s> + bias_s) over the negatives s that are not row n's positive, in nats [N]."""
    return torch.logsumexp(_logits(q_NP, e_SP, pos_id_N, neg_id_S, bias_S), dim=1)


def sampled_softmax_loss(
    q_NP: Tensor,
    e_pos_NP: Tensor,
    e_neg_SP: Tensor,
    pos_id_N: Tensor,
    neg_id_S: Tensor,
    log_expected_S: Tensor,
    weight_N: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the positive against the negatives, in nats [N]; column 0 of the table is the positive."""
    logit_NS = _logits(q_NP, e_neg_SP, pos_id_N, neg_id_S, -log_expected_S)
    positive_N1 = (q_NP * e_pos_NP).sum(dim=1, keepdim=True)
    target_N = torch.zeros(len(q_NP), dtype=torch.int64, device=q_NP.device)
    loss_N = functional.cross_entropy(torch.cat([positive_N1, logit_NS], dim=1), target_N, reduction="none")
    return loss_N if weight_N is None else loss_N * weight_N
