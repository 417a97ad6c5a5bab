"""A local file system whose operations tests can observe, delay or fail, and helpers to write and list checkpoints."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem

from model.checkpoint import list_checkpoints
from streaming.state.checkpoints import CheckpointStore


def _nothing(path: str) -> None:
    """Let the operation succeed."""


class FaultyFileSystem(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Calls a hook with the path before it reads or deletes, and after it has written half of a file."""

    protocol = "faulty"
    cachable = False
    on_write: Callable[[str], None] = _nothing
    on_read: Callable[[str], None] = _nothing
    on_delete: Callable[[str], None] = _nothing

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value[: len(value) // 2])
        FaultyFileSystem.on_write(path)
        super().pipe_file(path, value)

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        FaultyFileSystem.on_read(path)
        data: bytes = super().cat_file(path, *args, **kwargs)
        return data

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        FaultyFileSystem.on_delete(path)
        super().rm(path, recursive, maxdepth)


def faulty_url(folder: Path) -> str:
    """The folder on a FaultyFileSystem without faults."""
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
    FaultyFileSystem.on_write = FaultyFileSystem.on_read = FaultyFileSystem.on_delete = _nothing
    return f"faulty://{folder}"


def start_write(checkpoints: CheckpointStore, step: int, value: float = 0.0) -> None:
    """Start to write a small checkpoint."""
    state = {"part": {"step": step, "array": np.full(4, value)}}
    checkpoints.write(state, {"step": step, "position": step * 10, "learned": step, "mrr": None})


def write(checkpoints: CheckpointStore, step: int, value: float = 0.0) -> None:
    """Write a small checkpoint, which must succeed."""
    start_write(checkpoints, step, value)
    announced = checkpoints.take_finished(wait=True)
    assert announced is not None
    assert (announced.step, announced.position, announced.mrr) == (step, step * 10, None)


def steps(checkpoints: CheckpointStore) -> list[int]:
    """The steps of the complete checkpoints."""
    return [int(url.rsplit("/", 1)[-1]) for url in list_checkpoints(checkpoints.url)]


def change_format(folder: Path, number: int) -> None:
    """Make a checkpoint one of another format."""
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": number}))
