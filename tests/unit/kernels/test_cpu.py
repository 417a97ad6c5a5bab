"""The CPU implementation of the loss: equal to the reference in fp64, exact at the edges, and in bounded memory."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import cpu, reference
from tests.support.loss import SHAPES, assert_equal, draw, loss_and_gradients, lse_and_gradients, one_thread


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


def cpu_loss(
    q_NP: Tensor,
    e_pos_NP: Tensor,
    e_neg_SP: Tensor,
    pos_id_N: Tensor,
    neg_id_S: Tensor,
    log_expected_S: Tensor,
    weight_N: Tensor,
) -> Tensor:
    """The loss with the arguments of the reference."""
    return cpu.sampled_softmax_loss(q_NP, e_pos_NP, e_neg_SP, pos_id_N, neg_id_S, -log_expected_S, weight_N)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_lse_and_gradients_equal_reference(shape: tuple[int, int, int, int]) -> None:
    given = draw(*shape)
    assert_equal(lse_and_gradients(cpu.neg_lse, given), lse_and_gradients(reference.neg_lse, given))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize("even", [True, False], ids=["equal slopes", "different slopes"])
def test_loss_and_gradients_equal_reference(shape: tuple[int, int, int, int], even: bool) -> None:
    given = draw(*shape)
    slope = torch.full_like(given["weight"], 0.3) if even else given["weight"].flip(0) + 0.1
    assert_equal(
        loss_and_gradients(cpu_loss, given, slope), loss_and_gradients(reference.sampled_softmax_loss, given, slope)
    )


def test_fp32_is_accurate_to_five_digits() -> None:
    given = draw(300, 1024, 32, 90, torch.float32)
    exact = {name: value.detach().double().requires_grad_(value.requires_grad) for name, value in given.items()}
    exact |= {name: given[name] for name in ("pos_id", "neg_id")}
    slope = torch.ones(300)
    for one, other in zip(
        loss_and_gradients(cpu_loss, given, slope),
        loss_and_gradients(reference.sampled_softmax_loss, exact, slope.double()),
        strict=True,
    ):
        assert (one - other).norm() < 1e-5 * other.norm()


def test_lse_of_zero_vectors_counts_the_other_titles() -> None:
    pos_id, neg_id = torch.tensor([7, 1 << 60, 3, 9]), torch.tensor([7, 3, (1 << 60) + 1, 3, 7, 7])
    zero = torch.zeros(6, 2)
    lse = cpu.neg_lse(torch.zeros(4, 2), zero, pos_id, neg_id, zero[:, 0])
    assert lse.exp().round().tolist() == [3, 6, 4, 6]


def test_row_with_only_hits_has_no_loss_and_no_gradient() -> None:
    given = draw(3, 5, 4, 2)
    given["neg_id"] = torch.zeros(5, dtype=torch.int64)
    given["pos_id"] = torch.tensor([0, 1, 0])
    loss, q, e_pos, _ = loss_and_gradients(cpu_loss, given, torch.ones(3, dtype=torch.float64))
    assert loss[0] == loss[2] == 0 < loss[1]
    assert all((gradient[[0, 2]] == 0).all() and (gradient[1] != 0).any() for gradient in (q, e_pos))


def test_large_logits_do_not_overflow() -> None:
    q, e = torch.tensor([[1e4], [-1e4]]), torch.tensor([[1.0], [0.5], [1.0]])
    lse = cpu.neg_lse(q, e, torch.tensor([8, 8]), torch.tensor([0, 1, 2]), torch.zeros(3))
    assert lse.tolist() == pytest.approx([1e4 + math.log(2), -5e3], rel=1e-6)


def test_tiny_loss_is_exact() -> None:
    one = torch.ones(1, 1)
    loss = cpu_loss(one * 30, one, one * 0, torch.tensor([0]), torch.tensor([1]), torch.zeros(1), torch.ones(1))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-30)), rel=1e-5, abs=0)


def test_results_are_deterministic_and_inputs_unchanged() -> None:
    given = draw(1500, 1024, 8, 50, torch.float32)
    before = {name: value.detach().clone() for name, value in given.items()}
    slope = torch.rand(1500)
    first, second = loss_and_gradients(cpu_loss, given, slope), loss_and_gradients(cpu_loss, given, slope)
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
        loss_and_gradients(cpu_loss, given, torch.rand(2048))
    assert seen.elements == cpu.BLOCK_LOGITS < 2048 * 4096
