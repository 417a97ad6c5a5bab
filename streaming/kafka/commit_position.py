"""How far a flow's effects are durable, as its source commits it to the consumer group.

`features` and `titles` keep recovery state, and their sources commit the offsets that the engine has saved. `learn` and
`publish` keep none: their effects are durable when a checkpoint is complete, or when a list is written. Only the step
knows when that is. It advances a `CommitPosition`; the source reads it at each epoch and commits it. No other value
flows from a later step back to a source.
"""

from collections.abc import Mapping
from typing import Protocol


class DurablePosition(Protocol):
    """What a source needs to know: the offset up to which a partition's effects are durable."""

    def get(self, partition: int) -> int | None:
        """The next offset to commit for a partition, or None if it is unknown."""


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
