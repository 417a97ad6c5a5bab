"""Compiles the Triton kernels for absent GPUs and prints properties of the binaries, as JSON.

A separate process, because interpreter and compiler exclude each other. `test_triton_kernel.py` starts it with an empty
cache folder, so that no old binary is checked.
"""

import json
import re
import subprocess
import tempfile
from typing import Any

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels import triton_kernel
from kernels.triton_kernel import BACKWARD_TILES, FORWARD_TILES, TileConfig

TYPES = {"q_ptr": "*bf16", "e_ptr": "*bf16", "mean_ptr": "*bf16", "pos_ptr": "*i64", "neg_ptr": "*i64", "scale": "fp32"}


def kind(name: str, constants: dict[str, Any]) -> str:
    if name in constants:
        return "constexpr"
    return TYPES.get(name, "*fp32" if name.endswith("_ptr") else "i32")


def build(kernel: Any, config: TileConfig, block_p: int, width: int, capability: int) -> Any:
    constants = {"P": width, "BLOCK_P": block_p, "BLOCK_N": config.block_n, "BLOCK_S": config.block_s, "UPCAST": False}
    names = kernel.arg_names
    source = ASTSource(
        kernel,
        {name: kind(name, constants) for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {(index,): [["tt.divisibility", 16]] for index, name in enumerate(names) if name.endswith("_ptr")},
    )
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def stack_bytes(cubin: bytes) -> int:
    """Bytes of local memory per thread: spilled registers."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found = re.search(r"STACK:(\d+)", usage.stdout + usage.stderr)
    assert found, usage.stdout + usage.stderr
    return int(found.group(1))


def report(name: str, width: int, capability: int) -> dict[str, Any]:
    kernel, table = {
        "forward": (triton_kernel.forward_kernel, FORWARD_TILES),
        "backward": (triton_kernel.backward_kernel, BACKWARD_TILES),
    }[name]
    built = build(kernel, *triton_kernel.tile_config(table, width), width, capability)
    return {
        "case": f"{name} {width} sm_{capability}",
        "spill": stack_bytes(built.asm["cubin"]),
        "shared": built.metadata.shared,
        "tensor_core": len(re.findall("wgmma.mma_async" if capability == 90 else "mma.sync", built.asm["ptx"])),
    }


if __name__ == "__main__":
    cases = [(name, width) for name in ("forward", "backward") for width in (64, 128, 256)]
    print(json.dumps([report(*case, capability) for case in cases for capability in (80, 90)]))
