"""Checkpoints: folders with arrays in safetensors, all other state in msgpack, and a manifest with checksums.

A checkpoint is the learner's commit: it holds the state and the log position together. The manifest is written last; a
folder without one is not a checkpoint. On a local file system all files are flushed to the disk before the manifest is
written, so a checkpoint survives a power cut. A reader verifies sizes and checksums, so it detects a partial write or
damage and can fall back to an older checkpoint. Nothing is pickled, so a checkpoint from another source cannot run
code. A manifest cannot name files outside its folder. The storage is any fsspec URL.

    PART.safetensors   all arrays of a part of the state, each under its path in the part
    PART.state         the rest of the part, msgpack
    manifest.json      format, step, log position, settings, metrics; size and SHA-256 of each file and of itself
    pinned             a marker: rotation does not remove the folder
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import fsspec
import msgspec
import numpy as np
import torch
from fsspec.implementations.local import LocalFileSystem
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

FORMAT: Final = 12  # raise it when the names or the meaning of stored fields change
PIN_FILE: Final = "pinned"
MANIFEST: Final = "manifest.json"
_FILE_NAME: Final = re.compile(r"([A-Za-z0-9_-]+)\.(state|safetensors)")  # of a part
_ARRAY, _TENSOR = "\0array", "\0tensor"  # placeholders in PART.state for arrays in PART.safetensors
_LIST: Final = "\0list"
_BIG_INT: Final = "\0int"  # integers beyond 64 bits, in the state of random generators


class CheckpointError(Exception):
    """The checkpoint is missing, a partial write, damaged or of another format, as the message says."""


class CheckpointFormatError(CheckpointError):
    """The checkpoint was written by a version that uses another format."""

    def __init__(self, message: str, found: object) -> None:
        super().__init__(message)
        self.found = found  # the format in the manifest


class CheckpointWriteError(CheckpointError):
    """The storage did not accept the checkpoint."""


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Raise every error of the storage as CheckpointWriteError: object stores have error classes of their own."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        problem = f"The checkpoint at {url} could not be written ({error})"
        raise CheckpointWriteError(f"{problem}: free space or correct the permissions there.") from error


def save(url: str, state: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Write a checkpoint of a state's parts; the manifest is written last and makes it complete.

    Raises CheckpointWriteError if the storage fails; no partial files remain, unless the storage refuses that too.
    """
    files = serialize(state)
    full = {"format": FORMAT, **manifest, "files": checksums(files)}
    manifest_file = json.dumps({**full, "sha256": _manifest_checksum(full)}, indent=1).encode()
    storage, root = fsspec.core.url_to_fs(url)
    with storage_errors(url):
        try:
            _make_folder(storage, root)
            _put(storage, root, files)
            _put(storage, root, {MANIFEST: manifest_file})
        except BaseException:
            _discard(storage, root, [*files, MANIFEST])
            raise


def _make_folder(storage: fsspec.AbstractFileSystem, root: str) -> None:
    """Create the folder, and flush the entries of the new folders on its path."""
    local = isinstance(storage, LocalFileSystem)
    new = [folder for folder in Path(root).parents if local and not folder.exists()]
    storage.makedirs(root, exist_ok=True)
    for folder in (Path(root), *new):
        _flush(storage, str(folder.parent))


def _put(storage: fsspec.AbstractFileSystem, root: str, files: Mapping[str, bytes]) -> None:
    """Write files under temporary names, rename them once all are on the disk, and flush the folder."""
    for name, data in files.items():
        storage.pipe_file(f"{root}/{name}.part", data)
        _flush(storage, f"{root}/{name}.part")
    for name in files:
        storage.mv(f"{root}/{name}.part", f"{root}/{name}")
    _flush(storage, root)


def _flush(storage: fsspec.AbstractFileSystem, path: str) -> None:
    """Wait until a file or the entries of a folder are on the disk; an object store's write has already done so."""
    if isinstance(storage, LocalFileSystem):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _discard(storage: fsspec.AbstractFileSystem, root: str, names: Sequence[str]) -> None:
    """Delete what a failed write left; files of a checkpoint that was complete before it stay."""
    with suppress(Exception):  # the storage is failing; rotation deletes what remains
        partial = [f"{name}.part" for name in names]
        if not storage.exists(f"{root}/{MANIFEST}"):
            partial += names
        for name in partial:
            if storage.exists(f"{root}/{name}"):
                storage.rm_file(f"{root}/{name}")
        if storage.exists(root) and not storage.ls(root, detail=False):
            storage.rmdir(root)


def serialize(state: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a state's parts by name; equal states give equal bytes."""
    files: dict[str, bytes] = {}
    for part, value in state.items():
        arrays: dict[str, np.ndarray] = {}
        files[f"{part}.state"] = msgspec.msgpack.encode(_extract_arrays(value, "", arrays))
        files[f"{part}.safetensors"] = save_arrays(arrays)
    return files


def checksums(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """The manifest's entries for these files: sizes and SHA-256 checksums."""
    return {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}


def read_manifest(url: str) -> dict[str, Any]:
    """Read only the manifest. Raises CheckpointError if it is missing, damaged or of another format."""
    storage, root = fsspec.core.url_to_fs(url)
    try:
        manifest: Any = json.loads(storage.cat_file(f"{root}/{MANIFEST}"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"There is no checkpoint at {url}: its manifest is missing.") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"The checkpoint at {url} is damaged: its manifest cannot be read.") from None
    if not isinstance(manifest, dict):
        raise CheckpointError(f"The checkpoint at {url} is damaged: its manifest is not a JSON object.")
    if (found := manifest.get("format")) != FORMAT:
        raise CheckpointFormatError(
            f"The checkpoint at {url} has format {found}, this version reads {FORMAT}: "
            "use the version that wrote it, or start with an empty checkpoint folder.",
            found,
        )
    if manifest.pop("sha256", None) != _manifest_checksum(manifest):
        raise CheckpointError(f"The checkpoint at {url} is damaged: its manifest does not match its checksum.")
    if not _has_valid_files(manifest):
        raise CheckpointError(f"The checkpoint at {url} is damaged: its manifest names files that cannot be parts.")
    return manifest


def _has_valid_files(manifest: Mapping[str, Any]) -> bool:
    """Whether the manifest names two files in the checkpoint's own folder for each part, and their sizes and sums."""
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        return False
    parts = {match[1] for name in files if (match := _FILE_NAME.fullmatch(name))}
    expected = {f"{part}.{kind}" for part in parts for kind in ("state", "safetensors")}
    return {*files} == expected and all({*entry} >= {"bytes", "sha256"} for entry in files.values())


def load(url: str, parts: Sequence[str] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
    """(state, manifest), with the named parts or all parts.

    Raises CheckpointError if a file that is read is missing, does not match its checksum, or cannot be decoded.
    """
    manifest = read_manifest(url)
    storage, root = fsspec.core.url_to_fs(url)
    data = {}
    for name, expected in manifest["files"].items():
        if parts and name.split(".")[0] not in parts:
            continue
        try:
            data[name] = storage.cat_file(f"{root}/{name}")
        except FileNotFoundError:
            raise CheckpointError(f"The checkpoint at {url} is incomplete: {name} is missing.") from None
        if len(data[name]) != expected["bytes"] or hashlib.sha256(data[name]).hexdigest() != expected["sha256"]:
            raise CheckpointError(f"The checkpoint at {url} is damaged: {name} does not match its checksum.")
    state = {}
    for part in dict.fromkeys(name.split(".")[0] for name in data):
        try:
            tree = msgspec.msgpack.decode(data[f"{part}.state"])
            state[part] = _restore_arrays(tree, load_arrays(data[f"{part}.safetensors"]))
        except (msgspec.MsgspecError, SafetensorError, KeyError, TypeError, ValueError):
            raise CheckpointError(f"The checkpoint at {url} is damaged: {part} cannot be decoded.") from None
    return state, manifest


def folders(url: str) -> list[str]:
    """URLs of everything in a folder of checkpoints, oldest first, whether complete or not."""
    storage, root = fsspec.core.url_to_fs(url)
    if not storage.exists(root):
        return []
    return [f"{url}/{name}" for name in sorted(str(p).rsplit("/", 1)[-1] for p in storage.ls(root, detail=False))]


def list_checkpoints(url: str) -> list[str]:
    """URLs of the complete checkpoints in a folder of checkpoints, oldest first."""
    return [folder for folder in folders(url) if _has_file(folder, MANIFEST)]


def partial_writes(url: str) -> list[str]:
    """URLs of the partial writes that a crash left in a folder of checkpoints, oldest first; pinned ones excluded."""
    steps = [folder for folder in folders(url) if folder.rsplit("/", 1)[-1].isdigit()]  # others are not checkpoints
    return [folder for folder in steps if not any(_has_file(folder, name) for name in (MANIFEST, PIN_FILE))]


def size(url: str) -> int:
    """The bytes of all files of a checkpoint."""
    storage, root = fsspec.core.url_to_fs(url)
    return int(storage.du(root))


def pin(url: str) -> None:
    """Exclude this folder from rotation until it is unpinned."""
    storage, root = fsspec.core.url_to_fs(url)
    storage.makedirs(root, exist_ok=True)
    storage.pipe_file(f"{root}/{PIN_FILE}", b"1\n")
    _flush(storage, f"{root}/{PIN_FILE}")
    _flush(storage, root)


def unpin(url: str) -> None:
    """Let rotation remove this folder again."""
    storage, root = fsspec.core.url_to_fs(url)
    if storage.exists(f"{root}/{PIN_FILE}"):
        storage.rm_file(f"{root}/{PIN_FILE}")


def is_pinned(url: str) -> bool:
    """Whether the folder is excluded from rotation."""
    return _has_file(url, PIN_FILE)


def remove(url: str) -> None:
    """Delete a checkpoint, its manifest first."""
    storage, root = fsspec.core.url_to_fs(url)
    if storage.exists(f"{root}/{MANIFEST}"):
        storage.rm_file(f"{root}/{MANIFEST}")
    storage.rm(root, recursive=True)


def _has_file(url: str, name: str) -> bool:
    storage, root = fsspec.core.url_to_fs(url)
    return bool(storage.exists(f"{root}/{name}"))


def _manifest_checksum(manifest: Mapping[str, Any]) -> str:
    """The checksum of the manifest's own content, which includes the log position."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _extract_arrays(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """The tree with a placeholder for every array; the arrays go into `arrays` under their paths."""
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = _TENSOR if isinstance(value, torch.Tensor) else _ARRAY
        assert path not in arrays, f"two arrays at {path}: a key contains a slash"
        arrays[path] = np.asarray(value.numpy() if isinstance(value, torch.Tensor) else value, order="C")
        return {kind: path}
    if isinstance(value, Mapping):
        return [[key, _extract_arrays(item, f"{path}/{key}", arrays)] for key, item in value.items()]
    if isinstance(value, list | tuple):
        return {_LIST: [_extract_arrays(item, f"{path}/{i}", arrays) for i, item in enumerate(value)]}
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 63:
        return {_BIG_INT: str(value)}
    return value.item() if isinstance(value, np.generic) else value


def _restore_arrays(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The inverse of `_extract_arrays`; tuples come back as lists."""
    if isinstance(tree, list):
        return {key: _restore_arrays(item, arrays) for key, item in tree}
    if isinstance(tree, dict):
        ((kind, value),) = tree.items()
        if kind == _LIST:
            return [_restore_arrays(item, arrays) for item in value]
        if kind == _BIG_INT:
            return int(value)
        return torch.from_numpy(arrays[value].copy()) if kind == _TENSOR else arrays[value].copy()
    return tree
