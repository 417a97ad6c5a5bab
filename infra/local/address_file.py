"""The file in the data folder with the addresses of a running `premiere up`, where the other commands find them."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from infra.errors import SettingsError
from infra.local import data_lock
from infra.local.supervisor import FLOWS
from infra.settings import Settings

ADDRESS_FILE: Final = "running.json"
ADDRESS_FILE_FORMAT: Final = 1


@contextmanager
def write_addresses(settings: Settings) -> Iterator[None]:
    """Keep the addresses in the data folder during the context, readable by the owner: a URL may contain a password."""
    path = settings.data_dir / ADDRESS_FILE
    lock = data_lock.hold_up(settings.data_dir)  # also creates the folder
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    workers = [f"{flow}_workers" for flow in FLOWS if settings.worker_count(flow) > 1]
    names = ("bootstrap_servers", "redis_url", "metrics_port", "prefix", *workers)
    addresses = {name: getattr(settings, name) for name in names}
    new.write_text(json.dumps({"format": ADDRESS_FILE_FORMAT, "pid": os.getpid(), **addresses}))
    os.replace(new, path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if lock is not None:
            lock.close()


def with_local_services(settings: Settings) -> Settings:
    """These settings with the addresses of the `premiere up` on the same data_dir, unless another broker is set."""
    found = local_services(settings.data_dir)
    if not found or settings.bootstrap_servers not in ("", found["bootstrap_servers"]):
        return settings
    changed: Settings = settings.model_copy(update={**found, "redis_url": settings.redis_url or found["redis_url"]})
    return changed


def local_services(data_dir: Path) -> dict[str, Any]:
    """The settings that a running `premiere up` on `data_dir` wrote; empty if none runs.

    Raises SettingsError if the file is of another release, or damaged.
    """
    if not data_lock.is_up(data_dir):
        return {}
    try:
        found: dict[str, Any] = dict(json.loads((data_dir / ADDRESS_FILE).read_text()))
    except FileNotFoundError:  # it is starting or ending
        return {}
    except (ValueError, TypeError):
        raise SettingsError(f"{data_dir / ADDRESS_FILE} is damaged: stop `premiere up` and start it again.") from None
    found.pop("pid", None)
    if (version := found.pop("format", ADDRESS_FILE_FORMAT)) != ADDRESS_FILE_FORMAT:
        raise SettingsError(
            f"The `premiere up` on {data_dir} is of another release ({ADDRESS_FILE} has format {version}): "
            "use the commands of that release."
        )
    return found
