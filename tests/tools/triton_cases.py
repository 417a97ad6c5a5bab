"""Runs the Triton kernels in the interpreter and prints their errors against fp64, as JSON.

A separate process, because the interpreter must be selected before Triton is imported and must not affect other tests.
`test_triton_kernel.py` starts it with the cases on standard input.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"

import json
import sys
import traceback
from typing import Any

import torch
from torch import Tensor

from kernels import reference, triton_kernel

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int32": torch.int32, "int64": torch.int64}


def draw(case: dict[str, Any]) -> list[Tensor]:
    make = torch.Generator().manual_seed(case["rows"] + case["size"])
    q = torch.randn(case["rows"], case["width"], generator=make)
    e = torch.randn(case["size"], case["width"], generator=make)
    ids = [torch.randint(case["titles"], (n,), generator=make).to(TYPES[case["ids"]]) for n in (len(q), len(e))]
    unit = [torch.nn.functional.normalize(one, dim=1) for one in (q, e)]
    unit = [
        (one * scale).to(TYPES[case["type"]]).requires_grad_()
        for one, scale in zip(unit, (case["scale"], 1.0), strict=True)
    ]
    bias = torch.randn(len(e), generator=make) + case["shift"]
    return [*unit, *(one.repeat(case["repeat"]) for one in ids[:1]), ids[1], bias]


def run(path: Any, given: list[Tensor], slope: Tensor, case: dict[str, Any]) -> list[Tensor]:
    """lse and the gradients of q and e for an incoming gradient `slope`."""
    q, e, pos_id, neg_id, bias = given
    lse = path.neg_lse(q.repeat(case["repeat"], 1), e, pos_id, neg_id, bias)
    total = (lse.clamp(min=-1e30) * slope).sum()
    return [lse.detach(), *torch.autograd.grad(total, (q, e))]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Relative error by norm; infinity if the non-finite values differ."""
    if not torch.equal(actual.isneginf(), expected.isneginf()) or actual.isnan().any():
        return float("inf")
    actual, expected = actual.double().nan_to_num(neginf=0.0), expected.nan_to_num(neginf=0.0)
    return float((actual - expected).norm() / expected.norm().clamp(min=1e-9))


def measure(case: dict[str, Any]) -> dict[str, Any]:
    triton_kernel.BACKWARD_PROGRAMS = case["programs"]
    given = draw(case)
    slope = torch.rand(len(given[2]), generator=torch.Generator().manual_seed(5))
    exact = [one.detach().double().requires_grad_(one.requires_grad) for one in given]
    exact[2:4] = given[2:4]
    expected = run(reference, exact, slope.double(), case)
    first, second = run(triton_kernel, given, slope, case), run(triton_kernel, given, slope, case)
    return {
        "errors": [relative_error(one, other) for one, other in zip(first, expected, strict=True)],
        "repeats": all(torch.equal(one, other) for one, other in zip(first, second, strict=True)),
        "empty": int(expected[0].isneginf().sum()),
    }


def report(case: dict[str, Any]) -> dict[str, Any]:
    try:
        return measure(case)
    except Exception:
        return {"failed": traceback.format_exc()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # fills new memory with NaN, which reveals values that no kernel wrote
    print(json.dumps([report(case) for case in json.load(sys.stdin)]))
