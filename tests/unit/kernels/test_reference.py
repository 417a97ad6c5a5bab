"""The reference equals an example that is written out by hand."""

import math

import pytest
import torch

from kernels import reference

Q = torch.tensor([[1.0, 0.0], [0.5, -1.0]], dtype=torch.float64)
POSITIVE = torch.tensor([[2.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
NEGATIVES = torch.tensor([[1.0, 1.0], [0.0, 2.0], [-1.0, 0.0]], dtype=torch.float64)
POSITIVE_ID, NEGATIVE_ID = torch.tensor([7, 5]), torch.tensor([5, 6, 7])  # each row's positive is among the negatives
LOG_EXPECTED = torch.tensor([math.log(2.0), math.log(0.5), 0.0], dtype=torch.float64)
# <q, e>:  row 0: 1, 0, (hit)      row 1: (hit), -2, -0.5      <q, positive>: 2, -1
SUMS = [math.exp(1) / 2 + math.exp(0) / 0.5, math.exp(-2) / 0.5 + math.exp(-0.5)]
LOSSES = [-math.log(math.exp(2) / (math.exp(2) + SUMS[0])), -math.log(math.exp(-1) / (math.exp(-1) + SUMS[1]))]


def test_lse_excludes_the_positive_of_the_row() -> None:
    lse = reference.neg_lse(Q, NEGATIVES, POSITIVE_ID, NEGATIVE_ID, -LOG_EXPECTED)
    assert lse.tolist() == pytest.approx([math.log(total) for total in SUMS], rel=1e-12)


def test_loss_is_the_weighted_cross_entropy_of_the_positive() -> None:
    given = Q, POSITIVE, NEGATIVES, POSITIVE_ID, NEGATIVE_ID, LOG_EXPECTED
    assert reference.sampled_softmax_loss(*given).tolist() == pytest.approx(LOSSES, rel=1e-12)
    weighted = reference.sampled_softmax_loss(*given, torch.tensor([3.0, 0.0], dtype=torch.float64))
    assert weighted.tolist() == pytest.approx([3 * LOSSES[0], 0.0], rel=1e-12)


def test_row_without_a_negative_has_no_loss() -> None:
    lse = reference.neg_lse(Q, NEGATIVES[:1], torch.tensor([5, 5]), NEGATIVE_ID[:1], -LOG_EXPECTED[:1])
    assert lse.tolist() == [-math.inf, -math.inf]
    given = Q, POSITIVE, NEGATIVES[:1], torch.tensor([5, 5]), NEGATIVE_ID[:1], LOG_EXPECTED[:1]
    assert reference.sampled_softmax_loss(*given).tolist() == [0.0, 0.0]
