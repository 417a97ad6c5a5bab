"""Read the model versions that were announced in the topic `model-versions`.

A version's number is the offset of its record. Versions of a learner that another one has replaced are left out: they
come after a version with a higher fencing number. A rollback is an announcement too, so the newest record with a cause
other than "learned" determines whether a rollback is active.
"""

from collections.abc import Mapping

from msgspec import structs

from streaming.kafka.source import read_all
from streaming.records import DECODE_ERRORS, Version, decode_version
from streaming.topics import MODEL_VERSIONS


class VersionFence:
    """Recognizes versions of learners that were replaced. It must see all versions in their order."""

    def __init__(self) -> None:
        self.newest_owner = 0

    def accepts(self, version: Version) -> bool:
        """Whether no learner with a higher number has announced a version before. Operators may announce old ones."""
        if version.cause != "learned" and not version.automatic:
            return True
        self.newest_owner = max(self.newest_owner, version.owner)
        return version.owner == self.newest_owner


def read_versions(config: Mapping[str, str]) -> dict[int, Version]:
    """All announced versions by number, oldest first. Raises StreamError."""
    versions, fence = {}, VersionFence()
    for message in read_all(config, MODEL_VERSIONS):
        try:
            version = decode_version(message.value or b"")
        except DECODE_ERRORS:
            continue  # the flow `publish` skips invalid records too, and counts them
        if fence.accepts(version):
            versions[message.offset] = version
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
