"""List the model versions, roll back to an older one, and roll forward again.

A rollback announces an old version again under a new number, so the numbers of versions, and with them the revisions in
Redis, only increase. The flow `publish` then ignores newer versions until a rollforward is announced. The learner keeps
learning meanwhile. The checkpoint of a rollback is pinned before it is checked and announced, and unpinned only after
the next rollback or rollforward is announced. So a crash in between leaves one pin too many, never one too few.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaError, Producer
from msgspec import structs
from rich.console import Console
from rich.table import Table

from infra.errors import PremiereError
from infra.monitor.scrape import scrape_flows
from infra.settings import Settings
from model import checkpoint
from model.checkpoint import CheckpointError
from streaming.kafka.client import client_config, topic_name
from streaming.records import Version, to_json
from streaming.state.model_versions import active_rollback, read_versions
from streaming.topics import MODEL_VERSIONS

TABLE_ROWS: Final = 12  # newest versions in the table, besides those whose checkpoint exists
FLAGS: Final = ("served", "active_rollback", "pinned", "long_term")
DELIVERY_TIMEOUT_MS: Final = 15_000  # for the broker to accept an announcement
PUBLISH_TIMEOUT_S: Final = 30.0  # for `publish` to serve the announced version
POLL_INTERVAL_S: Final = 0.2

PrintLine = Callable[[str], object]


class VersionError(PremiereError):
    """A version does not exist, its checkpoint is missing or damaged, or it is not served."""


def find_version(versions: Mapping[int, Version], number: int) -> Version:
    """A version by its number. Raises VersionError."""
    if number not in versions:
        raise VersionError(f"There is no version {number}: `premiere versions` lists them.")
    return versions[number]


def rollback(settings: Settings, number: int, print_line: PrintLine, timeout: float = PUBLISH_TIMEOUT_S) -> None:
    """Serve an old version and ignore newer ones; wait at most `timeout` seconds for `publish`. Raises VersionError."""
    versions = read_versions(settings.kafka_config())
    version = find_version(versions, number)
    _pin(number, version.path)
    original = number if version.original_version is None else version.original_version
    announced = _announce(settings, structs.replace(version, cause="rollback", original_version=original))
    _unpin_all(settings, keep=version.path)
    print_line(f"Announced version {number} again as {announced}; newer ones wait for `premiere rollforward`.")
    _wait_until_served(settings, announced, timeout, print_line)


def _pin(number: int, url: str) -> None:
    """Pin a version's checkpoint and then check that it is complete. Raises VersionError.

    The order matters: rotation may be about to remove the checkpoint, and removes its manifest first.
    """
    was_pinned = checkpoint.is_pinned(url)
    try:
        checkpoint.read_manifest(url)  # else pinning would create a folder
        checkpoint.pin(url)
        checkpoint.load(url)
        checkpoint.read_manifest(url)
    except CheckpointError as error:
        if not was_pinned:
            checkpoint.unpin(url)
        raise VersionError(
            f"Version {number} cannot be served. {error} `premiere versions` shows which checkpoints exist; "
            f"`premiere verify {number} --to {url}` restores this one from the learner log."
        ) from None


def _wait_until_served(settings: Settings, number: int, timeout: float, print_line: PrintLine) -> None:
    """Report when `publish` serves a version; without metrics, report how to see it. Raises VersionError."""
    started = time.monotonic()
    while (served := _served_version(settings)) is not None and served < number:
        if time.monotonic() - started > timeout:
            raise VersionError(
                f"publish still serves version {served}, {timeout:g} s after {number} was announced: see its log. "
                "The announcement remains valid."
            )
        time.sleep(POLL_INTERVAL_S)
    if served is None:
        print_line(f"The metrics of publish cannot be read here: premiere_version_served will change to {number}.")
    else:
        print_line(f"publish serves version {served}.")


def rollforward(settings: Settings, print_line: PrintLine, timeout: float = PUBLISH_TIMEOUT_S) -> None:
    """End the rollback and serve the newest version again. Raises VersionError."""
    versions = read_versions(settings.kafka_config())
    if active_rollback(versions) is None:
        raise VersionError("No rollback is active.")
    learned = [(number, version) for number, version in versions.items() if version.cause == "learned"]
    for number, version in reversed(learned):
        if _manifest(version.path) is not None:
            announced = _announce(settings, structs.replace(version, cause="rollforward", original_version=number))
            _unpin_all(settings)
            print_line(f"Announced version {number}, the newest, again as {announced}; newer ones are served again.")
            _wait_until_served(settings, announced, timeout, print_line)
            return
    raise VersionError("No version can be served: none of the checkpoints exists.")


def version_rows(settings: Settings) -> list[dict[str, Any]]:
    """All announced versions, oldest first, with the state of their checkpoints. Raises StreamError.

    Each row has the fields of the announcement, its `number`, `checkpoint_exists`, `checkpoint_bytes` and `FLAGS`.
    """
    versions = read_versions(settings.kafka_config())
    url = settings.checkpoints_url()
    complete = checkpoint.list_checkpoints(url)
    elsewhere = {version.path for version in versions.values() if not version.path.startswith(f"{url}/")}
    manifests = {path: _manifest(path) for path in {*complete, *elsewhere}}
    pinned = {path for path, manifest in manifests.items() if manifest and checkpoint.is_pinned(path)}
    older = complete[: -settings.keep_checkpoints]
    served, rollback_number = _served_version(settings), active_rollback(versions)
    rows = []
    for number, version in versions.items():
        manifest = manifests.get(version.path)
        size = sum(file["bytes"] for file in manifest["files"].values()) if manifest else None
        rows.append(
            {
                "number": number,
                **msgspec.to_builtins(version),
                "checkpoint_exists": bool(manifest),
                "checkpoint_bytes": size,
                "served": number == served,
                "active_rollback": number == rollback_number,
                "pinned": version.path in pinned,
                "long_term": version.path in older and version.path not in pinned,
            }
        )
    return rows


def print_versions(rows: list[dict[str, Any]], show_all: bool = False) -> None:
    """Print a table of the newest versions and of those whose checkpoints exist."""
    table = Table("number", "step", "learned", "MRR", "created (UTC)", "size", "checkpoint", "")
    newest = {row["number"] for row in rows[-TABLE_ROWS:]}
    listed = [row for row in rows if show_all or row["checkpoint_exists"] or row["number"] in newest]
    for row in listed:
        table.add_row(*_cells(row))
    console = Console()
    console.print(table if rows else "No version has been announced yet.")
    if len(listed) < len(rows):
        console.print(f"{len(rows) - len(listed)} older versions are not listed: use `--all`.")


def _cells(row: Mapping[str, Any]) -> list[str]:
    mrr = "" if row["mrr"] is None else f"{row['mrr']:.4f}"
    size = "" if row["checkpoint_bytes"] is None else f"{row['checkpoint_bytes'] / 1e6:.1f} MB"
    created = datetime.fromtimestamp(row["created"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    cause = f"{row['cause']} to {row['original_version']}" if row["original_version"] is not None else ""
    flags = [cause, *(flag.replace("_", " ") for flag in FLAGS if row[flag])]
    exists = "exists" if row["checkpoint_exists"] else "removed"
    return [
        str(row["number"]), f"{row['step']:,}", f"{row['learned']:,}", mrr, created, size, exists,
        ", ".join(filter(None, flags)),
    ]  # fmt: skip


def _manifest(url: str) -> dict[str, Any] | None:
    """A checkpoint's manifest; None if it is missing or unreadable."""
    try:
        return checkpoint.read_manifest(url)
    except CheckpointError:
        return None


def _served_version(settings: Settings) -> int | None:
    """The number of the version that `publish` serves; None if it serves none or does not answer."""
    page = scrape_flows(settings, ["publish"])["publish"]
    served = [int(sample.value) for sample in page.select("premiere_version_served")] if page else []
    return served[0] if served and served[0] >= 0 else None


def _unpin_all(settings: Settings, keep: str = "") -> None:
    for url in checkpoint.list_checkpoints(settings.checkpoints_url()):
        if url != keep:
            checkpoint.unpin(url)


def _announce(settings: Settings, version: Version) -> int:
    """Write a record to `model-versions` and return its offset, the version's number. Raises VersionError."""
    deliveries: list[tuple[KafkaError | None, int | None]] = []
    limits = {"acks": "all", "delivery.timeout.ms": DELIVERY_TIMEOUT_MS, "log_level": 2}
    config = settings.kafka_config()
    producer = Producer({**client_config(config), **limits})
    producer.produce(
        topic_name(config, MODEL_VERSIONS),
        to_json(version),
        partition=0,
        on_delivery=lambda error, message: deliveries.append((error, message.offset())),
    )
    producer.flush(2 * DELIVERY_TIMEOUT_MS / 1000)
    error, offset = deliveries[0] if deliveries else (None, None)
    if error is not None or offset is None:
        raise VersionError(f"Kafka did not accept the announcement ({error}): nothing has changed; try again.")
    return offset
