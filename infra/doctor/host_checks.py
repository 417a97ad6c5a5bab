"""Checks of this host: folders, space, checkpoints, ports, the text encoder."""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import fsspec

from features.text_encoders import EncoderError, load_encoder
from infra.doctor.findings import Finding, Level
from infra.errors import PortError, SettingsError
from infra.learner_settings import check_checkpoint_settings, learner_settings
from infra.local.data_lock import is_up
from infra.local.supervisor import FLOWS
from infra.masking import mask_url
from infra.monitor.metrics_server import check_port_free, metrics_port
from infra.monitor.scrape import scrape_flow
from infra.settings import Settings

MIN_FREE_GB: Final = 2.0  # with less, a warning
FULL_GB: Final = 0.05  # with less, an error: the next snapshots and checkpoints do not fit
FOLDERS: Final = ("recovery", "checkpoints", "feast", "logs", "starts", "kafka", "redis")  # in data_dir
TEXT: Final = "a film about the sea"


def host_findings(settings: Settings) -> Iterator[Finding]:
    """All checks of this host and of the checkpoint storage."""
    yield from folder_findings(settings.data_dir)
    yield from _checkpoint_findings(settings.checkpoints_url())
    yield from _model_findings(settings)
    yield from _port_findings(settings)
    try:
        width = load_encoder(settings.text_encoder)([TEXT]).shape[1]
        yield Finding("ok", "encoder", f"{settings.text_encoder} gives vectors of {width} numbers")
    except EncoderError as error:
        yield Finding("error", "encoder", str(error))


def folder_findings(folder: Path) -> Iterator[Finding]:
    """Whether the data folder can be written, and its free space."""
    probe = folder / f".doctor-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        yield Finding("error", "disk", f"{folder} cannot be written ({reason})", "Set PREMIERE_DATA_DIR.")
        return
    for path in (folder / name for name in FOLDERS):
        if path.exists() and not path.is_dir():
            yield Finding("error", "disk", f"{path} is a file where a folder must be", "Move it away.")
    free = shutil.disk_usage(folder).free / 1e9
    level: Level = "error" if free < FULL_GB else "warning" if free < MIN_FREE_GB else "ok"
    yield Finding(
        level, "disk", f"{folder}: {free:.1f} GB free", f"Free at least {MIN_FREE_GB:g} GB.", may_pass=True
    )  # fmt: skip


def checkpoint_url_findings(url: str) -> Iterator[Finding]:
    """An error if no installed package can read the URL."""
    try:
        fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        yield _storage_error(url, error)
    except Exception:  # of the storage: learn waits for it
        return


def _checkpoint_findings(url: str) -> Iterator[Finding]:
    name = f"{url.rstrip('/')}/.doctor-{uuid.uuid4().hex}"
    try:
        storage, path = fsspec.url_to_fs(name)
        storage.makedirs(storage._parent(path), exist_ok=True)
        storage.pipe_file(path, b"x")
        storage.rm_file(path)
    except Exception as error:  # each storage has error classes of its own; ImportError: its package is missing
        yield _storage_error(url, error)
    else:
        yield Finding("ok", "storage", f"checkpoints can be written to {mask_url(url)}")


def _model_findings(settings: Settings) -> Iterator[Finding]:
    """Whether `learn` can continue with these settings from the newest checkpoint."""
    from model import checkpoint

    try:
        url = checkpoint.list_checkpoints(settings.checkpoints_url())[-1]
        check_checkpoint_settings(checkpoint.read_manifest(url), learner_settings(settings), mask_url(url))
    except IndexError:
        yield Finding("ok", "model", "there is no checkpoint: the model starts from scratch")
    except SettingsError as error:
        text, _, remedy = str(error).partition(". Restore ")
        yield Finding("error", "model", text, f"Restore {remedy}")
    except checkpoint.CheckpointError as error:  # `learn` takes an older one
        reason = str(error).replace(settings.checkpoints_url(), mask_url(settings.checkpoints_url()))
        yield Finding("warning", "model", f"the newest checkpoint cannot be read: {reason}")
    except Exception:  # of the storage, which has a finding of its own
        return
    else:
        yield Finding("ok", "model", f"continues from {mask_url(url)}")


def _storage_error(url: str, error: Exception) -> Finding:
    shown = mask_url(url)
    reason = str(error).replace(url, shown)
    return Finding(
        "error", "storage", f"checkpoints cannot be written to {shown} ({type(error).__name__}: {reason})",
        "Check PREMIERE_CHECKPOINTS, its credentials, and that the package of its protocol is installed.",
    )  # fmt: skip


def _port_findings(settings: Settings) -> Iterator[Finding]:
    if not settings.metrics_port:
        yield Finding("warning", "ports", "metrics and probes are off", "Set PREMIERE_METRICS_PORT.")
        return
    for flow in FLOWS:
        port = metrics_port(settings, flow)
        try:
            check_port_free(settings.metrics_host, port)
        except PortError as error:
            if is_up(settings.data_dir) or scrape_flow(settings, flow) is not None:
                yield Finding("ok", "ports", f"{flow} serves metrics on {port}")
            else:
                yield Finding("error", "ports", str(error))
        else:
            yield Finding("ok", "ports", f"{port} is free for {flow}")
