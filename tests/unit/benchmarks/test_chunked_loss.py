"""The chunked loss equals the reference, over several chunks."""

import torch
from torch.nn import functional

from benchmarks import chunked_loss
from kernels import reference


def test_loss_and_gradients_equal_the_reference() -> None:
    torch.manual_seed(0)
    rows, negatives, width = 2 * chunked_loss.CHUNK_ROWS + 7, 40, 8
    vectors = [10 * functional.normalize(torch.randn(n, width, dtype=torch.float64)) for n in (rows, rows, negatives)]
    q_NP, e_pos_NP, e_neg_SP = (vector.requires_grad_() for vector in vectors)
    neg_id_S = torch.randperm(100)[:negatives]
    pos_id_N, log_expected_S = torch.randint(100, (rows,)), torch.randn(negatives, dtype=torch.float64)
    assert torch.isin(pos_id_N, neg_id_S).any()  # accidental hits
    inputs, weight_N = (q_NP, e_pos_NP, e_neg_SP, pos_id_N, neg_id_S, log_expected_S), torch.rand(rows)
    ours = chunked_loss.sampled_softmax_loss(*inputs)
    expected = reference.sampled_softmax_loss(*inputs)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(
        torch.autograd.grad((weight_N * ours).sum(), (q_NP, e_pos_NP, e_neg_SP)),
        torch.autograd.grad((weight_N * expected).sum(), (q_NP, e_pos_NP, e_neg_SP)),
    )
