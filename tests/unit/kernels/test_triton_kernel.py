"""The Triton kernels: correct in the interpreter, compiled without register spills, and accurate on a GPU if present.

The interpreter and the compiler run in processes of their own (triton_cases.py, triton_gate.py), once for all tests. On
a GPU, the error in bf16 must be at most twice the error of plain PyTorch in bf16.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from kernels import reference, sampled_softmax
from tests.support.paths import ROOT, TOOLS

PLAIN: dict[str, Any] = {"titles": 1000, "scale": 1.0, "type": "fp32", "ids": "int64"}
PLAIN |= {"repeat": 1, "programs": 256, "shift": 0.0}
CASES: dict[str, dict[str, Any]] = {
    "smaller than a block": {"rows": 37, "size": 53, "width": 5},
    "several blocks, all ragged": {"rows": 150, "size": 140, "width": 24, "titles": 300},
    "several blocks in a split": {"rows": 200, "size": 140, "width": 16, "titles": 300, "programs": 2},
    "width 64": {"rows": 129, "size": 65, "width": 64, "titles": 100},
    "width 128": {"rows": 65, "size": 129, "width": 128, "titles": 100},
    "width between two powers": {"rows": 33, "size": 70, "width": 130, "titles": 100},
    "width one": {"rows": 3, "size": 4, "width": 1, "titles": 100},
    "many hits": {"rows": 70, "size": 130, "width": 16, "titles": 4},
    "every row hits everything": {"rows": 9, "size": 70, "width": 16, "titles": 1},
    "some rows hit everything": {"rows": 40, "size": 1, "width": 16, "titles": 2},
    "no negatives": {"rows": 7, "size": 0, "width": 16},
    "no rows": {"rows": 0, "size": 7, "width": 16},
    "three horizons": {"rows": 30, "size": 50, "width": 16, "titles": 9, "repeat": 3},
    "logits far below zero": {"rows": 20, "size": 70, "width": 16, "titles": 5, "shift": -200.0},
    "large products": {"rows": 40, "size": 150, "width": 32, "scale": 100.0},
    "narrow ids": {"rows": 20, "size": 30, "width": 16, "titles": 5, "ids": "int32"},
    "half precision": {"rows": 70, "size": 90, "width": 32, "titles": 20, "scale": 5.0, "type": "bf16"},
}
EMPTY = {"every row hits everything": 9, "no negatives": 7}  # rows without negatives
# The interpreter truncates to bf16: a mean relative error of 2^-8 per value, here for p and for the result.
TOLERANCE = {"fp32": 2e-5, "bf16": 2e-2}

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


def child(script: str, cache: Path, given: str = "") -> Any:
    keep = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    own = {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(cache), "TRITON_DEFAULT_FP_FUSION": "1"}
    command = [sys.executable, str(TOOLS / script)]
    done = subprocess.run(command, env=keep | own, input=given, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{script} ended with {done.returncode}:\n{done.stderr}"
    return json.loads(done.stdout)


def release(package: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version(package).split(".")[:2])


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if release("triton") < (3, 9) and release("numpy") >= (2, 4):
        pytest.skip("the interpreter of Triton before 3.9 cannot read a loop's bound under NumPy 2.4")
    cases = json.dumps([PLAIN | case for case in CASES.values()])
    return dict(zip(CASES, child("triton_cases.py", tmp_path_factory.mktemp("triton"), cases), strict=True))


@needs_triton
@pytest.mark.parametrize("name", CASES)
def test_kernels_equal_fp64_in_the_interpreter(name: str, interpreted: dict[str, Any]) -> None:
    found = interpreted[name]
    assert "failed" not in found, found["failed"]
    assert max(found["errors"]) < TOLERANCE[(PLAIN | CASES[name])["type"]], "lse, gradient of q, gradient of e"
    assert found["repeats"], "the second run gave different bits"
    assert found["empty"] == EMPTY.get(name, found["empty"])


@needs_triton
def test_kernels_compile_without_spills_and_use_tensor_cores(tmp_path: Path) -> None:
    built = child("triton_gate.py", tmp_path)
    assert len(built) == 12
    for one in built:
        assert one["spill"] == 0, one
        assert one["shared"] <= {"80": 163, "90": 227}[one["case"][-2:]] * 1024, one
        assert one["tensor_core"] > 0, one


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("width", [64, 128, 256])
def test_gpu_error_in_bf16_is_at_most_twice_pytorchs(width: int) -> None:
    paths: list[tuple[Any, torch.dtype]] = [
        (reference, torch.float64),
        (reference, torch.bfloat16),
        (sampled_softmax, torch.bfloat16),
    ]
    make = torch.Generator().manual_seed(width)
    vectors = [torch.nn.functional.normalize(torch.randn(n, width, generator=make), dim=1) for n in (1000, 700)]
    ids = [torch.randint(900, (n,), generator=make).cuda() for n in (1000, 700)]
    bias = torch.randn(700, generator=make).cuda()
    found = []
    for path, dtype in paths:
        q, e = (
            (one * scale).cuda().to(torch.bfloat16).to(dtype).requires_grad_()
            for one, scale in zip(vectors, (20.0, 1.0), strict=True)
        )
        lse = path.neg_lse(q, e, *ids, bias.to(dtype))
        found.append([lse.detach(), *torch.autograd.grad(lse.sum(), (q, e))])
    for exact, plain, ours in zip(*found, strict=True):
        assert (ours - exact).norm() <= 2 * (plain - exact).norm()
