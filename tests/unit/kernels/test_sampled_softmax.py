"""The public loss functions: repeated rows and negatives, and an unbiased estimate of the full softmax."""

import itertools
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from kernels import reference, sampled_softmax
from tests.support.loss import SHAPES, assert_equal, draw, loss_and_gradients, lse_and_gradients, one_thread
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_lse_equals_reference(shape: tuple[int, int, int, int]) -> None:
    given = draw(*shape)
    found, known = (lse_and_gradients(path.neg_lse, given) for path in (sampled_softmax, reference))
    assert_equal(found, known)


@pytest.mark.parametrize("weighted", [True, False])
def test_loss_with_or_without_weights_equals_reference(weighted: bool) -> None:
    given = draw(*SHAPES["many hits, repeated negatives"])
    slope = given["weight"].flip(0) + 0.1
    if not weighted:
        del given["weight"]
    found, known = (
        loss_and_gradients(path.sampled_softmax_loss, given, slope) for path in (sampled_softmax, reference)
    )
    assert_equal(found, known)


def test_repeated_rows_share_the_negatives() -> None:
    given = draw(12, 30, 4, 8)
    once = sampled_softmax.neg_lse(given["q"], given["e_neg"], given["pos_id"], given["neg_id"], given["log_expected"])
    thrice = sampled_softmax.neg_lse(
        given["q"].repeat(3, 1), given["e_neg"], given["pos_id"].repeat(3), given["neg_id"], given["log_expected"]
    )
    assert_equal([thrice], [once.repeat(3)])
    gradient = torch.autograd.grad(once.sum(), (given["q"], given["e_neg"]))
    assert_equal(
        list(torch.autograd.grad(thrice.sum(), (given["q"], given["e_neg"]))), [3 * gradient[0], 3 * gradient[1]]
    )


def test_duplicate_negative_equals_half_the_expected_count() -> None:
    given = draw(12, 30, 4, 50)
    twice = given | {name: given[name].repeat(2, *[1] * (given[name].dim() - 1)) for name in ("e_neg", "neg_id")}
    twice["log_expected"] = given["log_expected"].repeat(2)
    once = given | {"log_expected": given["log_expected"] - math.log(2)}
    assert_equal(
        [sampled_softmax.sampled_softmax_loss(*once.values())], [sampled_softmax.sampled_softmax_loss(*twice.values())]
    )


PROPOSAL = [0.55, 0.35, 0.1]  # title 0 is popular, title 2 is rare
SCORES = [[1.2, 0.3, 0.8], [1.2, 0.3, 0.8]]
POSITIVES = [0, 2]


def all_draws(n: int) -> Iterator[tuple[float, list[int]]]:
    """All multisets of n titles drawn with replacement from the proposal, with their probabilities."""
    for bag in itertools.combinations_with_replacement(range(3), n):
        ways = math.factorial(n) // math.prod(math.factorial(count) for count in Counter(bag).values())
        yield ways * math.prod(PROPOSAL[title] for title in bag), list(bag)


def one_draw(bag: list[int]) -> list[Tensor]:
    """q, e_pos, e_neg, pos_id, neg_id, log_expected. Titles are unit vectors, so q holds the scores."""
    q, axes = torch.tensor(SCORES, dtype=torch.float64, requires_grad=True), torch.eye(3, dtype=torch.float64)
    log_expected = (torch.tensor(PROPOSAL, dtype=torch.float64) * len(bag)).log()[bag]
    return [q, axes[POSITIVES], axes[bag], torch.tensor(POSITIVES), torch.tensor(bag), log_expected]


def test_sum_over_negatives_is_unbiased() -> None:
    expected = torch.zeros(2, dtype=torch.float64)
    for chance, bag in all_draws(3):
        q, _, e_neg, pos_id, neg_id, log_expected = one_draw(bag)
        expected += chance * sampled_softmax.neg_lse(q, e_neg, pos_id, neg_id, -log_expected).exp().detach()
    others = [sum(math.exp(s) for j, s in enumerate(SCORES[i]) if j != POSITIVES[i]) for i in (0, 1)]
    assert expected.tolist() == pytest.approx(others, rel=1e-12)


def expected_gradient(n: int) -> Tensor:
    total = torch.zeros(2, 3, dtype=torch.float64)
    for chance, bag in all_draws(n):
        q, *rest = one_draw(bag)
        total += chance * torch.autograd.grad(sampled_softmax.sampled_softmax_loss(q, *rest).sum(), q)[0]
    return total


def test_expected_gradient_converges_to_full_softmax() -> None:
    axes = torch.eye(3, dtype=torch.float64)
    full = torch.softmax(torch.tensor(SCORES, dtype=torch.float64), dim=1) - axes[POSITIVES]
    few, many = ((expected_gradient(n) - full).abs().amax(dim=1) for n in (6, 24))
    assert (many < few / 3).all()  # the bias decreases as 1/n
    assert (many < 0.03).all()


def test_package_works_without_triton() -> None:
    code = """
import sys; sys.modules["triton"] = None
import torch
from kernels import sampled_softmax
one = torch.ones(2, 1)
print(sampled_softmax.neg_lse(one, one, torch.tensor([5, 5]), torch.tensor([0, 1]), one[:, 0]).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([torch.tensor(2 + math.log(2)).item()] * 2)
