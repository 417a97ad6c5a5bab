"""The sampled softmax loss on the CPU: equal to the reference in fp64, and to known answers."""

import itertools
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import cpu, reference, sampled_softmax
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """With thousands of tiny products, threads would spend most of the time waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


SHAPES = {  # rows, negatives, width, titles
    "ragged": (37, 53, 5, 1000),
    "many hits, repeated negatives": (64, 40, 7, 6),
    "every row hits everything": (9, 4, 3, 1),
    "some rows hit everything": (23, 1, 6, 2),
    "one row": (1, 19, 4, 5),
    "no negatives": (11, 0, 4, 9),
    "no rows": (0, 8, 4, 9),
    "several blocks, the last one short": (1500, 1024, 8, 50),
}


def draw(rows: int, size: int, width: int, titles: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    make = torch.Generator().manual_seed(rows + size)
    return {
        "q": torch.randn(rows, width, generator=make, dtype=dtype).requires_grad_(),
        "e_pos": torch.randn(rows, width, generator=make, dtype=dtype).requires_grad_(),
        "e_neg": torch.randn(size, width, generator=make, dtype=dtype).requires_grad_(),
        "pos_id": torch.randint(titles, (rows,), generator=make),
        "neg_id": torch.randint(titles, (size,), generator=make),
        "log_expected": torch.randn(size, generator=make, dtype=dtype),
        "weight": torch.rand(rows, generator=make, dtype=dtype),
    }


def lse_and_gradients(path: Any, given: dict[str, Tensor], tau: float | Tensor) -> list[Tensor]:
    """lse and its gradients, for an incoming gradient that differs between rows."""
    lse = path.neg_lse(given["q"], given["e_neg"], given["pos_id"], given["neg_id"], given["log_expected"], tau)
    wanted = [given["q"], given["e_neg"], *([tau] if isinstance(tau, Tensor) else [])]
    total = (lse.clamp(min=-1e30) * given["weight"]).sum()
    return [lse, *torch.autograd.grad(total, wanted)]


def loss_and_gradients(path: Any, given: dict[str, Tensor], slope: Tensor) -> list[Tensor]:
    loss = path.sampled_softmax_loss(*given.values())
    return [loss, *torch.autograd.grad((loss * slope).sum(), (given["q"], given["e_pos"], given["e_neg"]))]


def assert_equal(found: list[Tensor], known: list[Tensor], tolerance: float = 1e-12) -> None:
    assert len(found) == len(known)
    for one, other in zip(found, known, strict=True):
        torch.testing.assert_close(one.to(other.dtype), other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize("tau", [1.0, 0.2])
def test_lse_and_gradients_equal_reference(shape: tuple[int, int, int, int], tau: float) -> None:
    given = draw(*shape)
    assert_equal(lse_and_gradients(sampled_softmax, given, tau), lse_and_gradients(reference, given, tau))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize("even", [True, False], ids=["equal slopes", "different slopes"])
def test_loss_and_gradients_equal_reference(shape: tuple[int, int, int, int], even: bool) -> None:
    given = draw(*shape)
    slope = torch.full_like(given["weight"], 0.3) if even else given["weight"].flip(0) + 0.1
    assert_equal(loss_and_gradients(sampled_softmax, given, slope), loss_and_gradients(reference, given, slope))


def test_fp32_is_accurate_to_five_digits() -> None:
    given = draw(300, 1024, 32, 90, torch.float32)
    exact = {name: value.detach().double().requires_grad_(value.requires_grad) for name, value in given.items()}
    exact |= {name: given[name] for name in ("pos_id", "neg_id")}
    slope = torch.ones(300)
    for one, other in zip(
        loss_and_gradients(sampled_softmax, given, slope),
        loss_and_gradients(reference, exact, slope.double()),
        strict=True,
    ):
        assert (one - other).norm() < 1e-5 * other.norm()


def test_learned_temperature_gets_its_gradient() -> None:
    given, tau = draw(37, 53, 5, 20), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert_equal(lse_and_gradients(sampled_softmax, given, tau), lse_and_gradients(reference, given, tau))


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


def test_lse_of_zero_vectors_counts_the_other_titles() -> None:
    pos_id, neg_id = torch.tensor([7, 1 << 60, 3, 9]), torch.tensor([7, 3, (1 << 60) + 1, 3, 7, 7])
    zero = torch.zeros(6, 2)
    lse = sampled_softmax.neg_lse(torch.zeros(4, 2), zero, pos_id, neg_id, zero[:, 0])
    assert lse.exp().round().tolist() == [3, 6, 4, 6]


def test_row_with_only_hits_has_no_loss_and_no_gradient() -> None:
    given = draw(3, 5, 4, 2)
    given["neg_id"] = torch.zeros(5, dtype=torch.int64)
    given["pos_id"] = torch.tensor([0, 1, 0])
    loss, q, e_pos, _ = loss_and_gradients(sampled_softmax, given, torch.ones(3, dtype=torch.float64))
    assert loss[0] == loss[2] == 0 < loss[1]
    assert all((gradient[[0, 2]] == 0).all() and (gradient[1] != 0).any() for gradient in (q, e_pos))


def test_large_logits_do_not_overflow() -> None:
    q, e = torch.tensor([[1e4], [-1e4]]), torch.tensor([[1.0], [0.5], [1.0]])
    lse = sampled_softmax.neg_lse(q, e, torch.tensor([8, 8]), torch.tensor([0, 1, 2]), torch.zeros(3))
    assert lse.tolist() == pytest.approx([1e4 + math.log(2), -5e3], rel=1e-6)


def test_tiny_loss_is_exact() -> None:
    one = torch.ones(1, 1)
    loss = sampled_softmax.sampled_softmax_loss(
        one * 30, one, one * 0, torch.tensor([0]), torch.tensor([1]), torch.zeros(1)
    )
    assert loss.item() == pytest.approx(math.log1p(math.exp(-30)), rel=1e-5, abs=0)


def test_results_are_deterministic_and_inputs_unchanged() -> None:
    given = draw(1500, 1024, 8, 50, torch.float32)
    before = {name: value.detach().clone() for name, value in given.items()}
    slope = torch.rand(1500)
    first, second = loss_and_gradients(sampled_softmax, given, slope), loss_and_gradients(sampled_softmax, given, slope)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert all(torch.equal(before[name], value) for name, value in given.items())


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the largest number of elements that any operation returned."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, tuple) else (out,)
        self.elements = max([self.elements, *(one.numel() for one in made if isinstance(one, Tensor))])
        return out


def test_full_table_of_logits_is_never_materialized() -> None:
    given = draw(2048, 4096, 4, 100_000, torch.float32)
    with Largest() as seen:
        loss_and_gradients(sampled_softmax, given, torch.rand(2048))
    assert seen.elements == cpu.BLOCK_LOGITS < 2048 * 4096


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
