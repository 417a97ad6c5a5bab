"""Benchmarks the loss step, forward and backward, against common alternatives.

A row is a query with its positive. The vectors are given, so gathering them from a table is not measured. Ids follow a
Zipf-like law over 100,000 titles, for positives and for negatives; the negatives are distinct. All variants use one
precision of matrix products (--products). "medium" permits oneDNN's reduced precision, which is twice as fast on some
processors; processors without AMX compute in exact fp32 either way.

    ours                          kernels.sampled_softmax.sampled_softmax_loss
    ours, separate lse            kernels.sampled_softmax.neg_lse, with the positive in plain PyTorch
    chunked                       benchmarks.chunked_loss: a chunk of rows at a time, the simple form of ours
    eager sampled softmax         kernels.reference: the full table of logits, autograd
    compiled sampled softmax      the same with torch.compile (GPU only: on a CPU it needs a compiler and seconds)
    linear_cross_entropy, local   torch's own chunked loss over the distinct titles of the batch
    full cross-entropy            every title is a negative, autograd (CPU only)

    python -m benchmarks.loss
"""

import argparse
import math
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import chunked_loss
from benchmarks.runner import Row, Work, compare_memory, compare_times, save_results, time_variants
from kernels import reference, sampled_softmax

TITLES: Final = 100_000
TEMPERATURE: Final = 0.05
SHAPES: Final = {  # rows, width, negatives
    "cpu": [(2048, 64, 1024), (2048, 128, 4096)],
    "cuda": [(65536, width, 8192) for width in (64, 128, 256)],
}


class LossInputs(NamedTuple):
    """The arguments of `sampled_softmax_loss` in order: unit vectors (q divided by the temperature) and ids."""

    q: Tensor  # [N, P]
    e_pos: Tensor  # [N, P]
    e_neg: Tensor  # [S, P]
    pos_id: Tensor  # [N]
    neg_id: Tensor  # [S]
    log_expected: Tensor  # [S]


def zipf_ids(count: int) -> Tensor:
    """Random ids with P(id) = log((id + 2) / (id + 1)) / log(TITLES + 1)."""
    power_N = math.log(TITLES + 1) * torch.rand(count, dtype=torch.float64)
    title_N: Tensor = power_N.exp().long().clamp(1, TITLES) - 1
    return title_N


def distinct_zipf_ids(count: int) -> Tensor:
    """Distinct ids drawn by the same law, as a training step uses negatives."""
    title_U: Tensor = torch.unique(zipf_ids(20 * count))
    return title_U[torch.randperm(len(title_U))[:count]]


def log_expected(title_N: Tensor, draws: int) -> Tensor:
    """Log of the expected number of times that each title is drawn."""
    probability_N = ((title_N + 2) / (title_N + 1)).log() / math.log(TITLES + 1)
    return (draws * probability_N).log()


def unit_vectors(count: int, width: int, dtype: torch.dtype, device: str) -> Tensor:
    """Random unit vectors [count, width]."""
    return functional.normalize(torch.randn(count, width), dim=1).to(device, dtype)


def random_inputs(rows: int, width: int, negatives: int, dtype: torch.dtype, device: str) -> LossInputs:
    """Inputs of one step; the vectors require gradients."""
    pos_id_N, neg_id_S = zipf_ids(rows).to(device), distinct_zipf_ids(negatives).to(device)
    q_NP = unit_vectors(rows, width, dtype, device) / TEMPERATURE
    e_pos_NP, e_neg_SP = unit_vectors(rows, width, dtype, device), unit_vectors(negatives, width, dtype, device)
    q_NP, e_pos_NP, e_neg_SP = (vectors.requires_grad_() for vectors in (q_NP, e_pos_NP, e_neg_SP))
    return LossInputs(q_NP, e_pos_NP, e_neg_SP, pos_id_N, neg_id_S, log_expected(neg_id_S, negatives))


def gradients_of(loss: Callable[[], Tensor], *inputs: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """A call that computes the mean loss and its gradients."""
    return lambda: torch.autograd.grad(loss().mean(), inputs)


def loss_with_separate_lse(inputs: LossInputs) -> Tensor:
    """The loss from `neg_lse`, with the positive outside of the kernel."""
    lse_N = sampled_softmax.neg_lse(inputs.q, inputs.e_neg, inputs.pos_id, inputs.neg_id, -inputs.log_expected)
    return functional.softplus(lse_N - (inputs.q * inputs.e_pos).sum(dim=1))


def sampled_variants(inputs: LossInputs) -> dict[str, Callable[[], tuple[Tensor, ...]]]:
    """The variants that compute the sampled softmax; all return the same gradients of q, e_pos and e_neg."""
    vectors = inputs[:3]
    variants = {
        "ours": gradients_of(lambda: sampled_softmax.sampled_softmax_loss(*inputs), *vectors),
        "ours, separate lse": gradients_of(lambda: loss_with_separate_lse(inputs), *vectors),
        "chunked": gradients_of(lambda: chunked_loss.sampled_softmax_loss(*inputs), *vectors),
        "eager sampled softmax": gradients_of(lambda: reference.sampled_softmax_loss(*inputs), *vectors),
    }
    if inputs.q.is_cuda:
        compiled = torch.compile(reference.sampled_softmax_loss)
        variants["compiled sampled softmax"] = gradients_of(lambda: compiled(*inputs), *vectors)
    return variants


def local_variant(inputs: LossInputs) -> dict[str, Work]:
    """torch's loss over the titles of the batch. It also uses the positives of other rows as negatives."""
    if not hasattr(functional, "linear_cross_entropy"):  # before torch 2.13
        return {}
    title_U, index = torch.unique(torch.cat([inputs.pos_id, inputs.neg_id]), return_inverse=True)
    e_UP = unit_vectors(len(title_U), inputs.q.shape[1], inputs.q.dtype, str(inputs.q.device)).requires_grad_()
    bias_U = -log_expected(title_U, len(index)).to(e_UP.dtype)
    target_N, options = index[: len(inputs.q)], torch.nn.LinearCrossEntropyOptions()

    def loss() -> Tensor:
        return functional.linear_cross_entropy(inputs.q, e_UP, target_N, linear_bias=bias_U, options=options)

    return {"linear_cross_entropy, local": gradients_of(loss, inputs.q, e_UP)}


def full_variant(inputs: LossInputs) -> dict[str, Work]:
    """All titles as negatives. At the sizes used on a GPU the table of logits does not fit."""
    if inputs.q.is_cuda:
        return {}
    e_VP = unit_vectors(TITLES, inputs.q.shape[1], inputs.q.dtype, "cpu").requires_grad_()

    def loss() -> Tensor:
        return functional.cross_entropy(inputs.q @ e_VP.T, inputs.pos_id)

    return {f"full cross-entropy, {TITLES:,}": gradients_of(loss, inputs.q, e_VP)}


def measure(rows: int, width: int, negatives: int, device: str, rounds: int) -> list[Row]:
    """Time and memory of all variants. One CPU thread is measured in CPU time, which other processes do not affect."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    inputs = random_inputs(rows, width, negatives, dtype, device)
    case = f"N{rows} p{width} S{negatives} {torch.get_float32_matmul_precision() if device == 'cpu' else 'bf16'}"
    variants: dict[str, Work] = {**sampled_variants(inputs), **local_variant(inputs), **full_variant(inputs)}
    cpu_time = device == "cpu" and torch.get_num_threads() == 1
    seconds = time_variants(variants, rounds, clock=time.process_time if cpu_time else time.perf_counter)
    times = compare_times(case, seconds, "ours", unit="CPU ms" if cpu_time else "ms")
    return times + compare_memory(case, variants, "ours")


def main() -> None:
    """Measure and save the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 9")
    parser.add_argument("--threads", type=int, default=1, help="more than one is meaningful only on idle cores")
    parser.add_argument(
        "--products", choices=["highest", "medium"], default="highest", help="precision of fp32 matrix products"
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision(options.products)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rounds = 3 if options.quick else 9
    save_results("loss", [row for shape in SHAPES[device] for row in measure(*shape, device, rounds)])


if __name__ == "__main__":
    main()
