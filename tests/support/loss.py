"""Inputs of the sampled softmax loss, and its values and gradients by any implementation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor

SHAPES: Final = {  # rows, negatives, width, titles
    "ragged": (37, 53, 5, 1000),
    "many hits, repeated negatives": (64, 40, 7, 6),
    "every row hits everything": (9, 4, 3, 1),
    "some rows hit everything": (23, 1, 6, 2),
    "one row": (1, 19, 4, 5),
    "no negatives": (11, 0, 4, 9),
    "no rows": (0, 8, 4, 9),
    "several blocks, the last one short": (1500, 1024, 8, 50),
}


@contextmanager
def one_thread() -> Iterator[None]:
    """With thousands of tiny products, threads would spend most of the time waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def draw(rows: int, size: int, width: int, titles: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Random arguments of `sampled_softmax_loss`, in its order."""
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


def lse_and_gradients(neg_lse: Callable[..., Tensor], given: dict[str, Tensor]) -> list[Tensor]:
    """lse and its gradients, for an incoming gradient that differs between rows; `log_expected` is the bias."""
    lse = neg_lse(given["q"], given["e_neg"], given["pos_id"], given["neg_id"], given["log_expected"])
    total = (lse.clamp(min=-1e30) * given["weight"]).sum()
    return [lse, *torch.autograd.grad(total, (given["q"], given["e_neg"]))]


def loss_and_gradients(loss: Callable[..., Tensor], given: dict[str, Tensor], slope: Tensor) -> list[Tensor]:
    """The loss of each row and its gradients, for an incoming gradient `slope`."""
    loss_N = loss(*given.values())
    return [loss_N, *torch.autograd.grad((loss_N * slope).sum(), (given["q"], given["e_pos"], given["e_neg"]))]


def assert_equal(found: list[Tensor], known: list[Tensor], tolerance: float = 1e-12) -> None:
    """Compare in the precision of `known`."""
    assert len(found) == len(known)
    for one, other in zip(found, known, strict=True):
        torch.testing.assert_close(one.to(other.dtype), other, rtol=tolerance, atol=tolerance)
