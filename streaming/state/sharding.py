"""Which users a `publish` process serves when several processes share the users.

The shard is a CRC-32 of the user id, so every process and every run assigns a user to the same worker.
"""

import zlib
from typing import NamedTuple


class Shard(NamedTuple):
    """The part of the users that one worker owns. Worker 0 also writes the keys that belong to no single user."""

    worker: int = 0  # index of this worker
    workers: int = 1  # number of workers

    def owns(self, user: str) -> bool:
        """Whether the user belongs to this shard."""
        return self.workers == 1 or zlib.crc32(user.encode()) % self.workers == self.worker

    @property
    def is_primary(self) -> bool:
        """Whether this shard also writes the default lists and the withdrawn titles."""
        return self.worker == 0
