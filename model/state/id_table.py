"""A table of ids, so that equal ids in memory are one object.

Histories and the catalog hold the same few ids many times. `sys.intern` would share them too, but Python 3.12 never
frees an interned string, so a producer that invents ids would fill the memory. This table drops the ids that nothing
else refers to as soon as it has doubled, so it holds at most twice the ids in use.
"""

from sys import getrefcount
from typing import Final

MIN_CAPACITY: Final = 1024
_OWN_REFERENCES: Final = 5  # key and value in the table, the list of the sweep, its variable, the argument


class IdTable:
    """Maps each id in use to one object."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._capacity = MIN_CAPACITY

    def __len__(self) -> int:
        return len(self._ids)

    def __call__(self, value: str) -> str:
        """The one object with this value."""
        found = self._ids.setdefault(value, value)
        if len(self._ids) > self._capacity:
            ids = list(self._ids.values())  # in one step, because another thread may add an id
            self._ids = {one: one for one in ids if getrefcount(one) > _OWN_REFERENCES}
            self._capacity = max(MIN_CAPACITY, 2 * len(self._ids))
        return found


shared_id: Final = IdTable()  # of the process
