"""Versions for operators: which there are and which are kept, back to an old one, and on again.

A rollback announces an old version again, so its number, and with it the revisions in Redis, only rises; `publish` then
holds later versions back until a record that resumes. The learner goes on meanwhile. The checkpoint that is rolled back
to is pinned before it is looked at and announced, and let go after the next rollback or `resume` is: a crash in between
leaves one pin too many, never one too few.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from confluent_kafka import KafkaError, Producer
from msgspec import MsgspecError, structs
from rich.console import Console
from rich.table import Table

from infra.errors import PremiereError
from infra.monitor.scrape import read_all as read_pages
from infra.settings import Settings
from model import checkpoint
from model.checkpoint import CheckpointError
from streaming.kafka.source import read_all
from streaming.records import Version, decode_version, to_json
from streaming.topics import MODEL_VERSIONS

SHOWN: Final = 12  # newest announcements in the table, beside those whose checkpoint is kept
MARKS: Final = ("live", "held", "pinned", "anchor")
PATIENCE_MS: Final = 15_000  # for the broker to take an announcement
WAIT: Final = 30.0  # seconds for `publish` to serve what was announced
LOOK: Final = 0.2  # seconds between two looks

Say = Callable[[str], None]


class VersionError(PremiereError):
    """A version that there is not, whose checkpoint is gone, or that is not served."""


def announced(config: Mapping[str, str]) -> dict[int, Version]:
    """Every announcement by its number, oldest first."""
    found = {}
    for message in read_all(config, MODEL_VERSIONS):
        try:
            found[message.offset] = decode_version(message.value or b"")
        except MsgspecError:
            continue  # as `publish` does, which counts them
    return found


def held(versions: Mapping[int, Version]) -> int | None:
    """The number of the rollback in force."""
    causes = [(number, version.cause) for number, version in versions.items() if version.cause != "learned"]
    return causes[-1][0] if causes and causes[-1][1] == "rollback" else None


def find(versions: Mapping[int, Version], number: int) -> Version:
    """A version by its number. Raises VersionError."""
    if number not in versions:
        raise VersionError(f"There is no version {number}: `premiere versions` lists them.")
    return versions[number]


def rollback(settings: Settings, number: int, say: Say, wait: float = WAIT) -> None:
    """Serve an old version, and hold later ones back. Raises VersionError."""
    versions = announced(settings.kafka())
    version = find(versions, number)
    _pin(number, version.path)
    of = number if version.of is None else version.of
    again = _announce(settings, structs.replace(version, cause="rollback", of=of))
    _unpin(settings, keep=version.path)
    say(f"Version {number} is announced again as {again}; later ones wait until `premiere resume`.")
    _follow(settings, again, wait, say)


def _pin(number: int, url: str) -> None:
    """Pin a version's checkpoint, and only then look whether it is whole: rotation may be about to remove it, and takes
    its manifest first. Raises VersionError."""
    before = checkpoint.pinned(url)
    try:
        checkpoint.read_manifest(url)  # no folder is made for a pin alone
        checkpoint.pin(url)
        checkpoint.load(url)
        checkpoint.read_manifest(url)
    except CheckpointError as error:
        if not before:
            checkpoint.unpin(url)
        raise VersionError(
            f"Version {number} cannot be served. {error} `premiere versions` shows which are kept; "
            f"`premiere rederive {number} --to {url}` makes it again from the log."
        ) from None


def _follow(settings: Settings, number: int, wait: float, say: Say) -> None:
    """Say when `publish` serves what was announced, or, where it cannot be asked, how to see that. Raises
    VersionError."""
    began = time.monotonic()
    while (live := _served(settings)) is not None and live < number:
        if time.monotonic() - began > wait:
            raise VersionError(
                f"publish serves version {live} still, {wait:g} s after {number} was announced: its log says why. "
                "The announcement stands."
            )
        time.sleep(LOOK)
    if live is None:
        say(f"publish cannot be asked from here: once it serves it, its metric premiere_version_served is {number}.")
    else:
        say(f"publish serves version {live}.")


def resume(settings: Settings, say: Say, wait: float = WAIT) -> None:
    """Serve the newest version again. Raises VersionError."""
    versions = announced(settings.kafka())
    if held(versions) is None:
        raise VersionError("There is nothing to resume: no rollback is in force.")
    learned = [(number, version) for number, version in versions.items() if version.cause == "learned"]
    for number, version in reversed(learned):
        if _manifest(version.path) is not None:
            again = _announce(settings, structs.replace(version, cause="resume", of=number))
            _unpin(settings)
            say(f"Version {number}, the newest, is announced again as {again}; what is learned is served as it comes.")
            _follow(settings, again, wait, say)
            return
    raise VersionError("No version can be served: none of the checkpoints is kept.")


def listed(settings: Settings) -> list[dict[str, Any]]:
    """All announcements, oldest first, with what is left of them. Raises StreamError where Kafka does not answer."""
    versions = announced(settings.kafka())
    url = settings.checkpoints_url()
    whole = checkpoint.present(url)
    elsewhere = {one.path for one in versions.values() if not one.path.startswith(f"{url}/")}
    manifests = {path: _manifest(path) for path in {*whole, *elsewhere}}
    pinned = {path for path, manifest in manifests.items() if manifest and checkpoint.pinned(path)}
    old = whole[: -settings.keep_checkpoints]
    live, holding = _served(settings), held(versions)
    rows = []
    for number, version in versions.items():
        manifest = manifests.get(version.path)
        marks = {
            "live": number == live,
            "held": number == holding,
            "pinned": version.path in pinned,
            "anchor": version.path in old and version.path not in pinned,
        }
        size = sum(file["bytes"] for file in manifest["files"].values()) if manifest else None
        rows.append({"number": number, **structs.asdict(version), "kept": bool(manifest), "bytes": size, **marks})
    return rows


def show(rows: list[dict[str, Any]], everything: bool = False) -> None:
    """The rows as a table: the newest, and those whose checkpoints are kept."""
    table = Table("number", "step", "learned", "MRR", "created (UTC)", "size", "checkpoint", "")
    newest = {row["number"] for row in rows[-SHOWN:]}
    shown = [row for row in rows if everything or row["kept"] or row["number"] in newest]
    for row in shown:
        table.add_row(*_cells(row))
    console = Console()
    console.print(table if rows else "No version has been announced yet.")
    if len(shown) < len(rows):
        console.print(f"{len(rows) - len(shown)} more are gone: `--all` shows them.")


def _cells(row: Mapping[str, Any]) -> list[str]:
    mrr = "" if row["mrr"] is None else f"{row['mrr']:.4f}"
    size = "" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f} MB"
    created = datetime.fromtimestamp(row["created"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    again = f"{row['cause']} of {row['of']}" if row["of"] is not None else ""
    marks = [again, *(mark for mark in MARKS if row[mark])]
    left = "kept" if row["kept"] else "gone"
    return [
        str(row["number"]), f"{row['step']:,}", f"{row['learned']:,}", mrr, created, size, left,
        ", ".join(filter(None, marks)),
    ]  # fmt: skip


def _manifest(url: str) -> dict[str, Any] | None:
    """A checkpoint's manifest; None where there is none that can be read."""
    try:
        return checkpoint.read_manifest(url)
    except CheckpointError:
        return None


def _served(settings: Settings) -> int | None:
    """The number of the version that `publish` serves; None where it does not answer or serves none."""
    page = read_pages(settings, ["publish"])["publish"]
    served = [int(reading.value) for reading in page.find("premiere_version_served")] if page else []
    return served[0] if served and served[0] >= 0 else None


def _unpin(settings: Settings, keep: str = "") -> None:
    for url in checkpoint.present(settings.checkpoints_url()):
        if url != keep:
            checkpoint.unpin(url)


def _announce(settings: Settings, version: Version) -> int:
    """Write a record to `model-versions`: its number. Raises VersionError."""
    done: list[tuple[KafkaError | None, int | None]] = []
    producer = Producer({**settings.kafka(), "acks": "all", "delivery.timeout.ms": PATIENCE_MS, "log_level": 2})
    producer.produce(
        MODEL_VERSIONS, to_json(version), partition=0, on_delivery=lambda error, at: done.append((error, at.offset()))
    )
    producer.flush(2 * PATIENCE_MS / 1000)
    error, offset = done[0] if done else (None, None)
    if error is not None or offset is None:
        raise VersionError(f"Kafka did not take the announcement ({error}): nothing has changed; try again.")
    return offset
