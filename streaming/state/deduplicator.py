"""Recognizes duplicate events by their offsets: for each source partition a high-water mark and a bitmap below it.

The events of a partition arrive almost in the order of their offsets. The bitmap marks the newest `window` offsets
below the high-water mark, so an event that arrives late within the window is new. An offset further below the mark is a
duplicate. So reprocessing takes no event twice, however many events it repeats, and the memory is bounded.

A recreated topic has other events at the same offsets. Each source topic, named by its identity, has its own marks.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

MAX_SOURCES: Final = 8  # source topics that are remembered; the one that appeared first is dropped


class Deduplicator:
    """The events seen so far, by source topic, partition and offset."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.sources: OrderedDict[str, dict[int, _SeenOffsets]] = OrderedDict()  # in the order of their first event

    def is_new(self, partition: int, offset: int, source: str = "") -> bool:
        """Whether this event of the topic `source` was not seen before; remembers it."""
        partitions = self.sources.get(source)
        if partitions is None:
            if len(self.sources) >= MAX_SOURCES:
                self.sources.popitem(last=False)
            partitions = self.sources[source] = {}
        seen = partitions.get(partition)
        if seen is None:
            seen = partitions[partition] = _SeenOffsets(self.window)
        return seen.add(offset)

    def state_dict(self) -> dict[str, Any]:
        return {
            "sources": [
                {"source": source, "partitions": {str(n): seen.state_dict() for n, seen in partitions.items()}}
                for source, partitions in self.sources.items()
            ]
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sources = OrderedDict(
            (saved["source"], {int(n): _SeenOffsets(self.window, seen) for n, seen in saved["partitions"].items()})
            for saved in state["sources"]
        )


class _SeenOffsets:
    """The seen offsets of one partition: all below `end - window`, and those marked in a ring of `window` entries."""

    __slots__ = ("end", "ring")

    def __init__(self, window: int, state: Mapping[str, Any] | None = None) -> None:
        """No offset, or those of a state. Offsets below the state's window count as seen if this one is longer."""
        self.end = 0  # high-water mark: one above the highest seen offset
        self.ring = bytearray(window)  # 1 at `offset % window` if an offset of the window was seen
        if state is not None:
            saved = np.unpackbits(state["seen"], count=state["window"])[-window:]
            in_order = np.concatenate([np.ones(window - len(saved), np.uint8), saved])
            self.end = state["end"]
            self.ring = bytearray(np.roll(in_order, self.end % window).tobytes())

    def add(self, offset: int) -> bool:
        """Mark an offset as seen. Returns False if it was seen before."""
        window = len(self.ring)
        if offset >= self.end:
            self._advance(offset + 1)
        elif offset < self.end - window or self.ring[offset % window]:
            return False
        self.ring[offset % window] = 1
        return True

    def _advance(self, end: int) -> None:
        """Raise the mark. The entries of offsets that leave the window become those of unseen offsets."""
        window, start = len(self.ring), self.end % len(self.ring)
        cleared = min(end - self.end, window)
        at_end = min(cleared, window - start)
        self.ring[start : start + at_end] = bytes(at_end)
        self.ring[: cleared - at_end] = bytes(cleared - at_end)
        self.end = end

    def state_dict(self) -> dict[str, Any]:
        """The mark, and the window as bits, lowest offset first."""
        in_order = np.roll(np.frombuffer(self.ring, np.uint8), -(self.end % len(self.ring)))
        return {"end": self.end, "window": len(self.ring), "seen": np.packbits(in_order)}
