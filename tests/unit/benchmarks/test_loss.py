"""The loss benchmark compares variants that compute the same, on ids of the distribution that it states."""

import pytest
import torch

from benchmarks.loss import TITLES, distinct_zipf_ids, log_expected, random_inputs, sampled_variants, zipf_ids


def test_all_sampled_variants_return_the_same_gradients() -> None:
    torch.manual_seed(0)
    inputs = random_inputs(600, 16, 64, torch.float32, "cpu")
    assert torch.isin(inputs.pos_id, inputs.neg_id).any()  # with accidental hits
    gradients = {name: compute() for name, compute in sampled_variants(inputs).items()}
    for gradient in gradients.values():
        torch.testing.assert_close(gradient, gradients["eager sampled softmax"], rtol=1e-4, atol=1e-6)
    assert len(gradients) >= 4


def test_ids_follow_the_stated_law() -> None:
    torch.manual_seed(0)
    probability_V = log_expected(torch.arange(TITLES), 1).exp()
    assert probability_V.sum().item() == pytest.approx(1, abs=1e-3)
    share = (zipf_ids(200_000) < 10).double().mean().item()
    assert share == pytest.approx(probability_V[:10].sum().item(), abs=0.01)


def test_negatives_are_distinct() -> None:
    torch.manual_seed(0)
    title_S = distinct_zipf_ids(1024)
    assert len(title_S) == len(set(title_S.tolist())) == 1024
