"""Mutation test of the loss kernels and of the streaming code: each mutant of the source must make a test fail.

    python -m tests.tools.mutants [--only WORD]         takes some minutes; exits with 1 if a mutant survives

A mutant replaces a piece of source text. It is applied to a copy of the project, in which a test runs: all tests of a
kernel, or the one test that a mutant of the streaming code names. `test_streaming_mutants.py` runs the latter in CI.
`tests/tools/limit_mutants.py` and `trust_mutants.py` do the same for what stops hostile producers and faulty processes.

Equivalent mutants, which change no result, are listed in EQUIVALENT with the reason.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.paths import ROOT

CPU, GPU = "kernels/cpu.py", "kernels/triton_kernel.py"
TESTS: Final = {CPU: "tests/unit/kernels/test_cpu.py", GPU: "tests/unit/kernels/test_triton_kernel.py"}
NEEDED: Final = ("kernels", "model", "features", "streaming", "infra", "tests", "pyproject.toml")
EQUIVALENT: Final = {
    "blocks of another size": "the same sums in another order",
    "rows beyond the last have a slope": "their lse is infinite, so their p is 0 in any case",
}


@dataclass(frozen=True)
class Mutant:
    """A fault: `old` is replaced by `new`."""

    name: str
    file: str
    old: str
    new: str
    times: int = 1  # occurrences of `old` in the file
    killed_by: str = ""  # the test below tests/unit that must fail; default: all tests of the file in TESTS


KERNEL_MUTANTS: Final = (
    Mutant("accidental hits are not masked", CPU, '] = float("-inf")', "] += 0.0"),
    Mutant("only single hits are masked", CPU, "torch.searchsorted(sorted_S, pos_id_N, right=True) - first_N",
           "(torch.searchsorted(sorted_S, pos_id_N, right=True) - first_N).clamp(max=1)"),
    Mutant("hits are indexed in unsorted order", CPU, "negatives.order[negatives.hit_start[rows][row_X] + nth_X]",
           "(negatives.hit_start[rows][row_X] + nth_X)"),
    Mutant("hits of the first block are masked in every block", CPU, "negatives.hit_start[rows][row_X]",
           "negatives.hit_start[row_X]"),
    Mutant("a row without negatives keeps NaN", CPU, "logit_CS[empty_C] = 0.0", "pass"),
    Mutant("a row without negatives has lse 0", CPU, "torch.where(empty_C, peak_C, peak_C",
           "torch.where(empty_C, 0 * peak_C, peak_C"),
    Mutant("lse lacks its maximum", CPU, "peak_C - logit_CS.amax(dim=1).log()", "-logit_CS.amax(dim=1).log()"),
    Mutant("no bias", CPU, "torch.addmm(negatives.bias, q_NP[rows]", "torch.addmm(0 * negatives.bias, q_NP[rows]"),
    Mutant("the last block is skipped", CPU, "range(0, len(q_NP), step)",
           "range(0, len(q_NP) - step + 1, step)"),
    Mutant("gradient of e from the last block only", CPU, "grad_SP.addmm_(p_CS.T, q_NP[rows] * slope_N[rows, None])",
           "grad_SP = p_CS.T @ (q_NP[rows] * slope_N[rows, None])", 2),
    Mutant("gradient of e without the slope", CPU, "grad_SP.addmm_(p_CS.T, q_NP[rows] * slope_N[rows, None])",
           "grad_SP.addmm_(p_CS.T, q_NP[rows])", 2),
    Mutant("gradient of q without the positive", CPU, "slope_N1 * (mean_NP - e_pos_NP)", "slope_N1 * mean_NP"),
    Mutant("the positive's gradient has the wrong sign", CPU, "-slope_N1 * q_NP", "slope_N1 * q_NP"),
    Mutant("different slopes are treated as equal", CPU, "elif (grad_N == grad_N[0]).all():", "elif True:"),
    Mutant("the weight is applied twice", CPU, "torch.sigmoid(margin_C) * weight_N[rows]",
           "torch.sigmoid(margin_C) * weight_N[rows] ** 2"),
    Mutant("softplus is not exact for tiny losses", CPU, "functional.softplus(margin_C, threshold=SOFTPLUS_THRESHOLD)",
           "(1 + margin_C.exp()).log()"),
    Mutant("the full table of logits is materialized", CPU, "step = max(1, min(len(q_NP), BLOCK_LOGITS // size))",
           "step = len(q_NP)"),
    Mutant("blocks of another size", CPU, "BLOCK_LOGITS = 1 << 20", "BLOCK_LOGITS = 1 << 17"),
    Mutant("accidental hits are not masked", GPU,
           'x = tl.where(pos[:, None] == neg[None, :], -float("inf"), x)', "x = x"),
    Mutant("hits are not masked in the backward pass", GPU,
           'x = tl.where(neg[:, None] == pos[None, :], -float("inf"), x)', "x = x"),
    Mutant("the sum is not rescaled", GPU, "total = total * shrink + tl.sum(p, 1)", "total = total + tl.sum(p, 1)"),
    Mutant("the mean is not rescaled", GPU, "mean = mean * shrink[:, None] + _dot", "mean = mean + _dot"),
    Mutant("the maximum begins at 0", GPU, "tl.full([BLOCK_N], -1e30, tl.float32)", "tl.zeros([BLOCK_N], tl.float32)"),
    Mutant("the maximum begins at -inf", GPU, "tl.full([BLOCK_N], -1e30,", 'tl.full([BLOCK_N], -float("inf"),'),
    Mutant("the mean is not divided", GPU, "mean = mean / total[:, None]", "mean = mean"),
    Mutant("columns beyond the last are included", GPU, 'mask=column < S, other=-float("inf")',
           "mask=column < S, other=0.0", 2),
    Mutant("bias in bits, not nats", GPU, ".to(tl.float32) * LOG2E", ".to(tl.float32)", 2),
    Mutant("lse in bits, not nats", GPU, "(peak + tl.log2(total)) * LN2", "peak + tl.log2(total)"),
    Mutant("products in nats, not bits", GPU, "UPCAST) * LOG2E +", "UPCAST) +", 2),
    Mutant("a row without negatives gives NaN gradients", GPU,
           'lse = tl.where(lse == -float("inf"), float("inf"), lse)', "lse = lse"),
    Mutant("a split includes all later rows", GPU, "tl.minimum(first + rows_per_split, N)", "N"),
    Mutant("the last block of a split is skipped", GPU, "tl.minimum(first + rows_per_split, N)",
           "tl.minimum(first + rows_per_split - BLOCK_N, N)"),
    Mutant("splits overwrite each other", GPU, "split.to(tl.int64) * S + column",
           "0 * split.to(tl.int64) * S + column"),
    Mutant("rows beyond the last have a slope", GPU, "mask=row < N, other=0.0)\n        lse = tl.where",
           "mask=row < N, other=1.0)\n        lse = tl.where"),
    Mutant("only half of the width is written", GPU, "inside = (column < S)[:, None] & (dim < P)[None, :]",
           "inside = (column < S)[:, None] & (dim < P // 2)[None, :]"),
    Mutant("the upcast is missing", GPU, "a = a.to(tl.float32)\n        b = b.to(tl.float32)", "pass"),
)  # fmt: skip

_UNIT_TESTS: Final = "tests/unit/"
STREAMING_MUTANTS: Final = (
    Mutant(
        "duplicates are learned again",
        "streaming/state/deduplicator.py",
        "return seen.add(offset)",
        "return seen.add(offset) or True",
        killed_by="streaming/state/test_deduplicator.py::test_reprocessing_more_than_the_window_takes_no_event_twice",
    ),
    Mutant(
        "the deduplication window is 1",
        "streaming/state/deduplicator.py",
        "self.window = window",
        "self.window = 1",
        killed_by="streaming/state/test_deduplicator.py::test_out_of_order_event_within_the_window_is_new_once",
    ),
    Mutant(
        "publish commits a position before its lists are written",
        "streaming/flows/publish.py",
        'self.done_offsets["activity"] = {0: pending}',
        "pass",
        killed_by="streaming/flows/test_publish_commit.py::test_position_is_never_ahead_of_the_written_lists",
    ),
    Mutant(
        "an older list replaces a newer one",
        "streaming/stores/redis_lists.py",
        "known[2] > ARGV[2] then return 0",
        "false then return 0",
        killed_by="streaming/stores/test_redis_lists.py::test_older_revision_never_overwrites_a_newer_one",
    ),
    Mutant(
        "the marker of an erased user has no revision",
        "streaming/stores/redis_lists.py",
        "Revision(write.appended, MAX_OFFSET, 0, 0)",
        "Revision(0, 0, 0, 0)",
        killed_by="streaming/stores/test_redis_lists.py::test_tombstone_of_erased_user_blocks_older_writes",
    ),
    Mutant(
        "an older set of withdrawn titles is written",
        "streaming/stores/withdrawn_set.py",
        "if stored(known[2]) > revision then return 'newer' end",
        "",
        killed_by="streaming/stores/test_withdrawn_set.py::test_late_write_of_an_older_set_changes_nothing",
    ),
    Mutant(
        "rotation deletes later checkpoints",
        "streaming/state/checkpoints.py",
        " and written_as <= step and",
        " and",
        killed_by="streaming/state/test_checkpoints_rotation.py::test_later_checkpoints_are_never_deleted",
    ),
    Mutant(
        "the offline log is published before its epoch is durable",
        "streaming/stores/parquet_log.py",
        "self._snapshots += 1",
        "self._snapshots += 1\n        self._publish()",
        killed_by="streaming/stores/test_parquet_log.py::test_rows_are_published_only_after_their_epoch_is_durable",
    ),
    Mutant(
        "an erasure is not in the learner log",
        "streaming/flows/features.py",
        "for record in update.records\n",
        "for record in update.records if isinstance(record, Activity)\n",
        killed_by="streaming/flows/test_features_erasure.py::test_unknown_user_leaves_only_the_request",
    ),
    Mutant(
        "a version that failed the gate is announced",
        "streaming/flows/learn.py",
        "if version.step in self.passed:",
        "if True:",
        killed_by="streaming/flows/test_learn_gate.py::test_state_that_is_not_finite_is_saved_but_not_announced",
    ),
    Mutant(
        "an epoch ends before the broker has its records",
        "streaming/kafka/sink.py",
        "while self.producer.flush(_FLUSH_INTERVAL_S):",
        "while False:",
        killed_by="streaming/kafka/test_sink.py::test_undelivered_record_raises",
    ),
)
MUTANTS: Final = KERNEL_MUTANTS + STREAMING_MUTANTS


def copy_project(folder: Path) -> None:
    """Copy what the tests need into a folder."""
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)


def survives(mutant: Mutant, folder: Path) -> bool:
    """Whether the tests pass with the mutant. Raises SystemExit if `old` does not occur as often as expected."""
    path = folder / mutant.file
    source = path.read_text()
    if source.count(mutant.old) != mutant.times:
        raise SystemExit(f"{mutant.file} does not contain {mutant.old!r} {mutant.times} time(s): update the mutant.")
    path.write_text(source.replace(mutant.old, mutant.new))
    test = f"{_UNIT_TESTS}{mutant.killed_by}" if mutant.killed_by else TESTS[mutant.file]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", test]
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


def main(mutants: Sequence[Mutant] = MUTANTS, description: str | None = __doc__) -> int:
    """Apply each mutant and print whether a test kills it. Returns 1 if one survives."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default="", help="run only mutants with this word in their file or name")
    only, survivors = options.parse_args().only, 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_project(folder)
        for mutant in mutants:
            if only not in f"{mutant.file} {mutant.name}":
                continue
            alive = survives(mutant, folder)
            verdict = (
                "killed"
                if not alive
                else f"equivalent: {EQUIVALENT[mutant.name]}"
                if mutant.name in EQUIVALENT
                else "SURVIVES"
            )
            survivors += verdict == "SURVIVES"
            print(f"{mutant.file:<26} {mutant.name:<44} {verdict}", flush=True)
    print(f"{survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
