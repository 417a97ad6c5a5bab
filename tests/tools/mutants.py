"""Checks the tests of the loss: each of some hand-made faults in its kernels must make a test fail.

    python tests/tools/mutants.py [--only WORD]          some minutes; ends with 1 where a fault goes unseen

A fault is a piece of source text and what stands there instead, applied to a copy of the project in which the tests of
the CPU path and of the Triton kernels run. A mutant that is known to change no result is named EQUAL, with the reason.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.paths import ROOT

CPU, GPU = "kernels/cpu.py", "kernels/triton_kernel.py"
TESTS: Final = {CPU: "tests/unit/kernels/test_sampled_softmax.py", GPU: "tests/unit/kernels/test_triton_kernel.py"}
NEEDED: Final = ("kernels", "tests", "pyproject.toml")
EQUAL: Final = {
    "blocks of another size": "the same sums in another order",
    "rows beyond the last have a slope": "their lse is infinite, so their p is 0 all the same",
}


@dataclass(frozen=True)
class Mutant:
    """`what` is wrong once `old`, which stands in `file` `times` times, has become `new`."""

    what: str
    file: str
    old: str
    new: str
    times: int = 1


MUTANTS: Final = (
    Mutant("accidental hits stay", CPU, '] = float("-inf")', "] += 0.0"),
    Mutant("hits leave only where drawn once", CPU, "torch.searchsorted(sorted_S, pos_id_N, right=True) - first_N",
           "(torch.searchsorted(sorted_S, pos_id_N, right=True) - first_N).clamp(max=1)"),
    Mutant("hits are looked for in unsorted order", CPU, "negatives.order[negatives.start[rows][row_H] + nth_H]",
           "(negatives.start[rows][row_H] + nth_H)"),
    Mutant("hits of the first block in every block", CPU, "negatives.start[rows][row_H]", "negatives.start[row_H]"),
    Mutant("an empty row keeps NaN", CPU, "logit_CS[empty_C] = 0.0", "pass"),
    Mutant("an empty row has lse 0", CPU, "torch.where(empty_C, peak_C, peak_C",
           "torch.where(empty_C, 0 * peak_C, peak_C"),
    Mutant("lse without its maximum", CPU, "peak_C - logit_CS.amax(dim=1).log()", "-logit_CS.amax(dim=1).log()"),
    Mutant("no bias", CPU, "torch.addmm(negatives.bias, q_NP[rows]", "torch.addmm(0 * negatives.bias, q_NP[rows]"),
    Mutant("the last block's rows are left out", CPU, "range(0, len(q_NP), step)",
           "range(0, len(q_NP) - step + 1, step)"),
    Mutant("dE of the last block only", CPU, "grad_SP.addmm_(p_CS.T, q_NP[rows] * slope_N[rows, None])",
           "grad_SP = p_CS.T @ (q_NP[rows] * slope_N[rows, None])", 2),
    Mutant("dE without its slope", CPU, "grad_SP.addmm_(p_CS.T, q_NP[rows] * slope_N[rows, None])",
           "grad_SP.addmm_(p_CS.T, q_NP[rows])", 2),
    Mutant("dq without its positive", CPU, "slope_N1 * (mean_NP - e_pos_NP)", "slope_N1 * mean_NP"),
    Mutant("the positive's gradient has the wrong sign", CPU, "-slope_N1 * q_NP", "slope_N1 * q_NP"),
    Mutant("uneven slopes taken for even ones", CPU, "elif (grad_N == grad_N[0]).all():", "elif True:"),
    Mutant("the weight counts twice", CPU, "torch.sigmoid(margin_C) * weight_N[rows]",
           "torch.sigmoid(margin_C) * weight_N[rows] ** 2"),
    Mutant("softplus loses tiny losses", CPU, "functional.softplus(margin_C, threshold=EXACT)",
           "(1 + margin_C.exp()).log()"),
    Mutant("the whole table of logits is made", CPU, "step = max(1, min(len(q_NP), BLOCK // size))",
           "step = len(q_NP)"),
    Mutant("blocks of another size", CPU, "BLOCK = 1 << 20", "BLOCK = 1 << 17"),
    Mutant("accidental hits stay", GPU, 'x = tl.where(pos[:, None] == neg[None, :], -float("inf"), x)', "x = x"),
    Mutant("hits stay in the backward pass", GPU, 'x = tl.where(neg[:, None] == pos[None, :], -float("inf"), x)',
           "x = x"),
    Mutant("no shrinking of the sum", GPU, "total = total * shrink + tl.sum(p, 1)", "total = total + tl.sum(p, 1)"),
    Mutant("no shrinking of the mean", GPU, "mean = mean * shrink[:, None] + _dot", "mean = mean + _dot"),
    Mutant("the maximum begins at 0", GPU, "tl.full([BLOCK_N], -1e30, tl.float32)", "tl.zeros([BLOCK_N], tl.float32)"),
    Mutant("the maximum begins at -inf", GPU, "tl.full([BLOCK_N], -1e30,", 'tl.full([BLOCK_N], -float("inf"),'),
    Mutant("the mean is not divided", GPU, "mean = mean / total[:, None]", "mean = mean"),
    Mutant("columns beyond the last count", GPU, 'mask=column < S, other=-float("inf")',
           "mask=column < S, other=0.0", 2),
    Mutant("bias in bits, not nats", GPU, ".to(tl.float32) * LOG2E", ".to(tl.float32)", 2),
    Mutant("lse in bits, not nats", GPU, "(peak + tl.log2(total)) * LN2", "peak + tl.log2(total)"),
    Mutant("no temperature", GPU, "LOG2E.value / tau", "LOG2E.value", 2),
    Mutant("gradients without the temperature", GPU, "slope_N = slope_N / ctx.tau", "slope_N = slope_N"),
    Mutant("an empty row is NaN backwards", GPU, 'lse = tl.where(lse == -float("inf"), float("inf"), lse)',
           "lse = lse"),
    Mutant("a share sees every row after its first", GPU, "tl.minimum(first + rows_per_share, N)", "N"),
    Mutant("a share's last block is left out", GPU, "tl.minimum(first + rows_per_share, N)",
           "tl.minimum(first + rows_per_share - BLOCK_N, N)"),
    Mutant("shares overwrite one another", GPU, "share.to(tl.int64) * S + column",
           "0 * share.to(tl.int64) * S + column"),
    Mutant("rows beyond the last have a slope", GPU, "mask=row < N, other=0.0)\n        lse = tl.where",
           "mask=row < N, other=1.0)\n        lse = tl.where"),
    Mutant("half a width is written", GPU, "inside = (column < S)[:, None] & (depth < P)[None, :]",
           "inside = (column < S)[:, None] & (depth < P // 2)[None, :]"),
    Mutant("the upcast is missing", GPU, "a = a.to(tl.float32)\n        b = b.to(tl.float32)", "pass"),
)  # fmt: skip


def survives(mutant: Mutant, folder: Path) -> bool:
    """Whether the tests pass all the same. Raises SystemExit where the source no longer reads so."""
    path = folder / mutant.file
    source = path.read_text()
    if source.count(mutant.old) != mutant.times:
        raise SystemExit(
            f"{mutant.file} does not hold {mutant.old!r} {mutant.times} time(s): bring the mutant up to date."
        )
    path.write_text(source.replace(mutant.old, mutant.new))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--noconftest", "-p", "no:cacheprovider", TESTS[mutant.file]]
    try:
        environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return False
    finally:
        path.write_text(source)
    if done.returncode not in (0, 1):
        raise SystemExit(f"The tests did not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 0


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default="", help="mutants with this in their file or name")
    only, unseen = options.parse_args().only, 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in NEEDED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
        for mutant in MUTANTS:
            if only not in f"{mutant.file} {mutant.what}":
                continue
            alive = survives(mutant, folder)
            verdict = "killed" if not alive else f"equal: {EQUAL[mutant.what]}" if mutant.what in EQUAL else "SURVIVES"
            unseen += verdict == "SURVIVES"
            print(f"{mutant.file:<26} {mutant.what:<44} {verdict}", flush=True)
    print(f"{unseen} unseen")
    return 1 if unseen else 0


if __name__ == "__main__":
    sys.exit(main())
