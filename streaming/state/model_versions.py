"""Read the model versions that were announced in the topic `model-versions`.

A version's number is the offset of its record. A rollback is an announcement too, so the newest record with a cause
other than "learned" determines whether a rollback is active.
"""

from collections.abc import Mapping

from msgspec import structs

from streaming.kafka.source import read_all
from streaming.records import DECODE_ERRORS, Version, decode_version
from streaming.topics import MODEL_VERSIONS


def read_versions(config: Mapping[str, str]) -> dict[int, Version]:
    """All announced versions by number, oldest first. Raises StreamError."""
    versions = {}
    for message in read_all(config, MODEL_VERSIONS):
        try:
            versions[message.offset] = decode_version(message.value or b"")
        except DECODE_ERRORS:
            continue  # the flow `publish` skips invalid records too, and counts them
    return versions


def active_rollback(versions: Mapping[int, Version]) -> int | None:
    """The number of the announcement of the active rollback; None if no rollback is active.

    An automatic rollback ends with the next learned version, and does not replace one by an operator.
    """
    active: int | None = None
    for number, version in versions.items():
        is_held = active is not None and not versions[active].automatic
        if version.cause == "rollforward" or (version.cause == "learned" and not is_held):
            active = None
        elif version.cause == "rollback" and not (version.automatic and is_held):
            active = number
    return active


def automatic_rollback(version: Version) -> Version:
    """The record with which the gate announces the last good version again."""
    return structs.replace(version, cause="rollback", automatic=True)
