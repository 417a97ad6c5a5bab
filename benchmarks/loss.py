"""The loss step, forward and backward, beside what people would pick instead; `python -m benchmarks.loss`.

Rows are queries and their positives; the vectors are given, so gathering them from a table is no part of
it. Ids follow a Zipf-like law over 100,000 titles, for the positives and for the negatives, which are
distinct. All variants run with the same precision of products (--products): "medium" lets torch take
oneDNN's, which on some processors are twice as fast, and exact fp32 wherever there is no AMX.

    ours                          sampled_softmax.sampled_softmax_loss
    ours, lse apart               sampled_softmax.neg_lse with the positive in plain PyTorch
    chunked                       benchmarks.chunked: some rows at a time, gradients written out, the plain form of ours
    eager sampled softmax         kernels.reference: the table of logits, autograd
    compiled sampled softmax      the same by torch.compile (GPU only: on a CPU it takes a compiler and seconds)
    linear_cross_entropy, local   torch's own chunked loss over the batch's titles, each once
    full cross-entropy            every title is a negative, autograd
"""

import argparse
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import chunked
from benchmarks.runner import Row, compare, compare_memory, in_turn, publish
from kernels import reference, sampled_softmax

TITLES = 100_000
Step = Callable[[], object]


class Batch(NamedTuple):
    """What sampled_softmax.sampled_softmax_loss takes, in its order: unit vectors (q times 20) and ids."""

    q: Tensor  # [N, P]
    e_pos: Tensor  # [N, P]
    e_neg: Tensor  # [S, P]
    pos_id: Tensor  # [N]
    neg_id: Tensor  # [S]
    log_expected: Tensor  # [S]


def zipf(count: int) -> Tensor:
    """Ids with P(id) = log((id + 2) / (id + 1)) / log(TITLES + 1)."""
    power_N = math.log(TITLES + 1) * torch.rand(count, dtype=torch.float64)
    title_N: Tensor = power_N.exp().long().clamp(1, TITLES) - 1
    return title_N


def distinct(count: int) -> Tensor:
    """Negatives as a step takes them: drawn by that law, each once."""
    title_U: Tensor = torch.unique(zipf(20 * count))
    return title_U[torch.randperm(len(title_U))[:count]]


def log_expected(title_N: Tensor, draws: int) -> Tensor:
    chance_N = ((title_N + 2) / (title_N + 1)).log() / math.log(TITLES + 1)
    return (draws * chance_N).log()


def unit(count: int, width: int, like: torch.dtype, device: str) -> Tensor:
    return functional.normalize(torch.randn(count, width), dim=1).to(device, like)


def batch(rows: int, width: int, size: int, like: torch.dtype, device: str) -> Batch:
    pos_id_N, neg_id_S = zipf(rows).to(device), distinct(size).to(device)
    q_NP = unit(rows, width, like, device) / 0.05
    e_pos_NP, e_neg_SP = unit(rows, width, like, device), unit(size, width, like, device)
    q_NP, e_pos_NP, e_neg_SP = (one.requires_grad_() for one in (q_NP, e_pos_NP, e_neg_SP))
    return Batch(q_NP, e_pos_NP, e_neg_SP, pos_id_N, neg_id_S, log_expected(neg_id_S, size))


def step(loss: Callable[[], Tensor], *wanted: Tensor) -> Step:
    return lambda: torch.autograd.grad(loss().mean(), wanted)


def lse_apart(given: Batch) -> Tensor:
    lse_N = sampled_softmax.neg_lse(given.q, given.e_neg, given.pos_id, given.neg_id, -given.log_expected)
    return functional.softplus(lse_N - (given.q * given.e_pos).sum(dim=1))


def sampled(given: Batch) -> dict[str, Step]:
    wanted = given[:3]
    steps = {
        "ours": step(lambda: sampled_softmax.sampled_softmax_loss(*given), *wanted),
        "ours, lse apart": step(lambda: lse_apart(given), *wanted),
        "chunked": step(lambda: chunked.sampled_softmax_loss(*given), *wanted),
        "eager sampled softmax": step(lambda: reference.sampled_softmax_loss(*given), *wanted),
    }
    if given.q.is_cuda:
        compiled = torch.compile(reference.sampled_softmax_loss)
        steps["compiled sampled softmax"] = step(lambda: compiled(*given), *wanted)
    return steps


def local_catalog(given: Batch) -> dict[str, Step]:
    """torch's loss over the titles of the batch; the other rows' positives become negatives too."""
    if not hasattr(functional, "linear_cross_entropy"):  # before torch 2.13
        return {}
    title_U, place = torch.unique(torch.cat([given.pos_id, given.neg_id]), return_inverse=True)
    e_UP = unit(len(title_U), given.q.shape[1], given.q.dtype, str(given.q.device)).requires_grad_()
    bias_U = -log_expected(title_U, len(place)).to(e_UP.dtype)
    target_N, options = place[: len(given.q)], torch.nn.LinearCrossEntropyOptions()

    def loss() -> Tensor:
        return functional.linear_cross_entropy(given.q, e_UP, target_N, linear_bias=bias_U, options=options)

    return {"linear_cross_entropy, local": step(loss, given.q, e_UP)}


def full(given: Batch) -> dict[str, Step]:
    """All titles at once; on a GPU at the sizes used here the table of logits does not fit."""
    if given.q.is_cuda:
        return {}
    e_VP = unit(TITLES, given.q.shape[1], given.q.dtype, "cpu").requires_grad_()
    loss = lambda: functional.cross_entropy(given.q @ e_VP.T, given.pos_id)  # noqa: E731
    return {f"full cross-entropy, {TITLES:,}": step(loss, given.q, e_VP)}


def measure(rows: int, width: int, size: int, device: str, rounds: int) -> list[Row]:
    """One thread of a CPU is timed by the time it worked, so that neighbours on the machine do not count."""
    like = torch.bfloat16 if device == "cuda" else torch.float32
    given = batch(rows, width, size, like, device)
    case = f"N{rows} p{width} S{size} {torch.get_float32_matmul_precision() if device == 'cpu' else 'bf16'}"
    variants = sampled(given) | local_catalog(given) | full(given)
    alone = device == "cpu" and torch.get_num_threads() == 1
    seconds = in_turn(variants, rounds, clock=time.process_time if alone else time.perf_counter)
    return compare(case, seconds, "ours", unit="CPU ms" if alone else "ms") + compare_memory(case, variants, "ours")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="3 rounds instead of 9")
    options.add_argument("--threads", type=int, default=1, help="more than one only tells on cores that are free")
    options.add_argument("--products", choices=["highest", "medium"], default="highest")
    chosen = options.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(chosen.threads)
    torch.set_float32_matmul_precision(chosen.products)
    place = "cuda" if torch.cuda.is_available() else "cpu"
    shapes = {"cpu": [(2048, 64, 1024), (2048, 128, 4096)], "cuda": [(65536, p, 8192) for p in (64, 128, 256)]}[place]
    publish("loss", [row for shape in shapes for row in measure(*shape, place, 3 if chosen.quick else 9)])
