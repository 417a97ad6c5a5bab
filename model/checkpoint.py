"""A checkpoint is a folder: weights and arrays in safetensors, all other state in msgpack, and a manifest that vouches.

The checkpoint is the learner's commit: state and log position lie in one, and it counts only once its manifest is
there, which is written last. A reader checks sizes and checksums first, so that a torn or damaged one is passed over
for its parent. No pickle: a checkpoint from elsewhere cannot run code. The storage is any fsspec URL.

    PART.safetensors   every array of a part of the state, under its path in it
    PART.state         the rest of the part, msgpack
    manifest.json      format, step, position in the log, settings, metrics; sizes and sha256, its own included
    pinned             where it is there, no rotation removes the folder
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

FORMAT: Final = 4
PIN: Final = "pinned"
_ARRAY, _TENSOR = "\0array", "\0tensor"  # marks in `state` for what lies in arrays.safetensors
_BIG: Final = "\0int"  # integers beyond 64 bits: the random generators' state


class CheckpointError(Exception):
    """The checkpoint is missing, torn, damaged or of another format: the message says which and what to do."""


def save(url: str, state: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Write a checkpoint of a state's parts; it does not exist until its last byte is there."""
    files = pack(state)
    whole = {"format": FORMAT, **manifest, "files": sums(files)}
    files["manifest.json"] = json.dumps({**whole, "sha256": _seal(whole)}, indent=1).encode()
    storage, root = fsspec.core.url_to_fs(url)
    storage.makedirs(root, exist_ok=True)
    for name, data in files.items():
        storage.pipe_file(f"{root}/{name}.part", data)
        storage.mv(f"{root}/{name}.part", f"{root}/{name}")


def pack(state: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a state's parts: the same state gives the same bytes."""
    files: dict[str, bytes] = {}
    for part, value in state.items():
        arrays: dict[str, np.ndarray] = {}
        files[f"{part}.state"] = msgspec.msgpack.encode(_pull(value, "", arrays))
        files[f"{part}.safetensors"] = save_arrays(arrays)
    return files


def sums(files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """What a manifest says of its files: sizes and checksums."""
    return {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}


def read_manifest(url: str) -> dict[str, Any]:
    """The manifest alone. Raises CheckpointError where it is missing or of another format."""
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
            "use the version that wrote it, or start anew."
        )
    if manifest.pop("sha256", None) != _seal(manifest):
        raise CheckpointError(f"The checkpoint at {url} is damaged: its manifest does not match its checksum.")
    return manifest


def load(url: str, parts: Sequence[str] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
    """(state, manifest), of the named parts or of all. Raises CheckpointError where anything that is read is missing or
    does not match its checksum."""
    manifest = read_manifest(url)
    storage, root = fsspec.core.url_to_fs(url)
    data = {}
    for name, said in manifest["files"].items():
        if parts and name.split(".")[0] not in parts:
            continue
        try:
            data[name] = storage.cat_file(f"{root}/{name}")
        except FileNotFoundError:
            raise CheckpointError(f"The checkpoint at {url} is torn: {name} is missing.") from None
        if len(data[name]) != said["bytes"] or hashlib.sha256(data[name]).hexdigest() != said["sha256"]:
            raise CheckpointError(f"The checkpoint at {url} is damaged: {name} does not match its checksum.")
    state = {}
    for part in dict.fromkeys(name.split(".")[0] for name in data):
        tree = msgspec.msgpack.decode(data[f"{part}.state"])
        state[part] = _push(tree, load_arrays(data[f"{part}.safetensors"]))
    return state, manifest


def present(url: str) -> list[str]:
    """URLs of the checkpoints in a folder of checkpoints, oldest first; those with no manifest do not count."""
    storage, root = fsspec.core.url_to_fs(url)
    return [f"{url}/{name}" for name in _names(storage, root) if storage.exists(f"{root}/{name}/manifest.json")]


def torn(url: str) -> list[str]:
    """URLs of what a crash left half written in a folder of checkpoints, oldest first; nothing that is pinned."""
    storage, root = fsspec.core.url_to_fs(url)
    steps = [name for name in _names(storage, root) if name.isdigit()]  # ours have no other names
    whole_or_pinned = ("manifest.json", PIN)
    return [f"{url}/{s}" for s in steps if not any(storage.exists(f"{root}/{s}/{name}") for name in whole_or_pinned)]


def pin(url: str) -> None:
    """Keep this folder from rotation until it is unpinned."""
    storage, root = fsspec.core.url_to_fs(url)
    storage.makedirs(root, exist_ok=True)
    storage.pipe_file(f"{root}/{PIN}", b"1\n")


def unpin(url: str) -> None:
    """Let rotation have it."""
    storage, root = fsspec.core.url_to_fs(url)
    if storage.exists(f"{root}/{PIN}"):
        storage.rm_file(f"{root}/{PIN}")


def pinned(url: str) -> bool:
    """Whether it is kept from rotation."""
    storage, root = fsspec.core.url_to_fs(url)
    return bool(storage.exists(f"{root}/{PIN}"))


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


def _seal(manifest: Mapping[str, Any]) -> str:
    """The checksum of the manifest itself, which holds the position in the log."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _pull(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """The tree with every array replaced by a mark; the arrays go into `arrays` under their paths."""
    if isinstance(value, torch.Tensor | np.ndarray):
        mark = _TENSOR if isinstance(value, torch.Tensor) else _ARRAY
        assert path not in arrays, f"two arrays at {path}: a key holds a slash"
        arrays[path] = np.asarray(value.numpy() if isinstance(value, torch.Tensor) else value, order="C")
        return {mark: path}
    if isinstance(value, Mapping):
        return [[key, _pull(item, f"{path}/{key}", arrays)] for key, item in value.items()]
    if isinstance(value, list | tuple):
        return {"\0list": [_pull(item, f"{path}/{i}", arrays) for i, item in enumerate(value)]}
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 63:
        return {_BIG: str(value)}
    return value.item() if isinstance(value, np.generic) else value


def _push(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The inverse of `_pull`; tuples come back as lists."""
    if isinstance(tree, list):
        return {key: _push(item, arrays) for key, item in tree}
    if isinstance(tree, dict):
        ((mark, value),) = tree.items()
        if mark == "\0list":
            return [_push(item, arrays) for item in value]
        if mark == _BIG:
            return int(value)
        return torch.from_numpy(arrays[value].copy()) if mark == _TENSOR else arrays[value].copy()
    return tree
