"""Checkpoints: folders with arrays in safetensors, all other state in msgpack, and a manifest with checksums.

A checkpoint is the learner's commit: it holds the state and the log position together. The manifest is written last; a
folder without one is not a checkpoint. A reader verifies sizes and checksums, so it detects a partial write or damage
and can fall back to an older checkpoint. Nothing is pickled, so a checkpoint from another source cannot run code. The
storage is any fsspec URL.

    PART.safetensors   all arrays of a part of the state, each under its path in the part
    PART.state         the rest of the part, msgpack
    manifest.json      format, step, log position, settings, metrics; size and SHA-256 of each file and of itself
    pinned             a marker: rotation does not remove the folder
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import fsspec
import msgspec
import numpy as np
import torch
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

FORMAT: Final = 5  # raise it when the names or the meaning of stored fields change
PIN_FILE: Final = "pinned"
_ARRAY, _TENSOR = "\0array", "\0tensor"  # placeholders in PART.state for arrays in PART.safetensors
_LIST: Final = "\0list"
_BIG_INT: Final = "\0int"  # integers beyond 64 bits, in the state of random generators


class CheckpointError(Exception):
    """The checkpoint is missing, a partial write, damaged or of another format, as the message says."""


def save(url: str, state: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Write a checkpoint of a state's parts; the manifest is written last and makes it complete."""
    files = serialize(state)
    full = {"format": FORMAT, **manifest, "files": checksums(files)}
    files["manifest.json"] = json.dumps({**full, "sha256": _manifest_checksum(full)}, indent=1).encode()
    storage, root = fsspec.core.url_to_fs(url)
    storage.makedirs(root, exist_ok=True)
    for name, data in files.items():
        storage.pipe_file(f"{root}/{name}.part", data)
        storage.mv(f"{root}/{name}.part", f"{root}/{name}")


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
        manifest: dict[str, Any] = json.loads(storage.cat_file(f"{root}/manifest.json"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"There is no checkpoint at {url}: its manifest is missing.") from None
    except ValueError:
        raise CheckpointError(f"The checkpoint at {url} is damaged: its manifest cannot be read.") from None
    if manifest.get("format") != FORMAT:
        raise CheckpointError(
            f"The checkpoint at {url} has format {manifest.get('format')}, this version reads {FORMAT}: "
            "use the version that wrote it, or start with an empty checkpoint folder."
        )
    if manifest.pop("sha256", None) != _manifest_checksum(manifest):
        raise CheckpointError(f"The checkpoint at {url} is damaged: its manifest does not match its checksum.")
    return manifest


def load(url: str, parts: Sequence[str] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
    """(state, manifest), with the named parts or all parts.

    Raises CheckpointError if a file that is read is missing or does not match its checksum.
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
        tree = msgspec.msgpack.decode(data[f"{part}.state"])
        state[part] = _restore_arrays(tree, load_arrays(data[f"{part}.safetensors"]))
    return state, manifest


def list_checkpoints(url: str) -> list[str]:
    """URLs of the complete checkpoints in a folder of checkpoints, oldest first."""
    storage, root = fsspec.core.url_to_fs(url)
    return [f"{url}/{name}" for name in _names(storage, root) if storage.exists(f"{root}/{name}/manifest.json")]


def partial_writes(url: str) -> list[str]:
    """URLs of the partial writes that a crash left in a folder of checkpoints, oldest first; pinned ones excluded."""
    storage, root = fsspec.core.url_to_fs(url)
    steps = [name for name in _names(storage, root) if name.isdigit()]  # other names are not checkpoints
    kept_by = ("manifest.json", PIN_FILE)
    return [f"{url}/{s}" for s in steps if not any(storage.exists(f"{root}/{s}/{name}") for name in kept_by)]


def pin(url: str) -> None:
    """Exclude this folder from rotation until it is unpinned."""
    storage, root = fsspec.core.url_to_fs(url)
    storage.makedirs(root, exist_ok=True)
    storage.pipe_file(f"{root}/{PIN_FILE}", b"1\n")


def unpin(url: str) -> None:
    """Let rotation remove this folder again."""
    storage, root = fsspec.core.url_to_fs(url)
    if storage.exists(f"{root}/{PIN_FILE}"):
        storage.rm_file(f"{root}/{PIN_FILE}")


def is_pinned(url: str) -> bool:
    """Whether the folder is excluded from rotation."""
    storage, root = fsspec.core.url_to_fs(url)
    return bool(storage.exists(f"{root}/{PIN_FILE}"))


def remove(url: str) -> None:
    """Delete a checkpoint, its manifest first."""
    storage, root = fsspec.core.url_to_fs(url)
    if storage.exists(f"{root}/manifest.json"):
        storage.rm_file(f"{root}/manifest.json")
    storage.rm(root, recursive=True)


def _names(storage: fsspec.AbstractFileSystem, root: str) -> list[str]:
    if not storage.exists(root):
        return []
    return sorted(str(path).rsplit("/", 1)[-1] for path in storage.ls(root, detail=False))


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
