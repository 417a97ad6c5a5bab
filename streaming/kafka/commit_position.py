"""How far a flow's effects are durable, as its source commits it to the consumer group.

`features` and `titles` keep recovery state, and their sources commit the offsets that the engine has saved. `learn` and
`publish` keep none: their effects are durable when a checkpoint is complete, or when a list is written. Only the step
knows when that is. It advances a `CommitPosition`; the source reads it at each epoch and commits it. No other value
flows from a later step back to a source.
"""

from collections.abc import Mapping
from typing import Final, Protocol

from streaming.errors import StreamError

SNAPSHOT_FORMAT: Final = 1  # of a source's snapshot

Snapshot = tuple[int, int]  # of a source: format, offset of the next message


class DurablePosition(Protocol):
    """What a source needs to know: the offset up to which a partition's effects are durable."""

    def get(self, partition: int) -> int | None:
        """The next offset to commit for a partition, or None if it is unknown."""


class ReadPosition:
    """How far a source has read a partition."""

    def __init__(self, offset: int) -> None:
        self.next = offset  # the offset to read next
        self.delivered = offset  # one after the last record

    def deliver(self, offset: int) -> None:
        """The record at `offset` is read."""
        self.next = self.delivered = offset + 1

    def reach_end(self, offset: int) -> None:
        """The log ends at `offset`. Between it and the last record are only markers of transactions."""
        self.next = max(self.next, offset)

    def committable(self, position: int | None) -> int | None:
        """What to commit if all effects before `position` are durable: the end of the log, if no record follows."""
        return self.next if position == self.delivered else position


class CommitPosition:
    """The next offset of each partition: the effects of all records before it are durable.

    One step writes it and one source reads it. Thread-safety: one writer and any number of readers need no lock,
    because each call reads or writes one dictionary item, which is atomic in CPython.
    """

    def __init__(self, offsets: Mapping[int, int] | None = None) -> None:
        self._offsets = dict(offsets or {})

    def advance(self, partition: int, offset: int) -> None:
        """The effects of all records of `partition` before `offset` are durable. Offsets never decrease."""
        self._offsets[partition] = offset

    def get(self, partition: int) -> int | None:
        """The next offset to commit for a partition, or None before the first `advance`."""
        return self._offsets.get(partition)


def start_offset(resume_state: Snapshot | None, start: int | None) -> int | None:
    """Where to begin: at the snapshot's offset, else at `start`. None: at the beginning of the log.

    Raises StreamError.
    """
    if resume_state is None:
        return start
    snapshot_format, offset = resume_state
    if snapshot_format != SNAPSHOT_FORMAT:
        raise StreamError(
            f"A newer version of Premiere wrote this offset (format {snapshot_format}): run that version."
        )
    return offset
