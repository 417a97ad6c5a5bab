"""Which viewers a process serves, where several share them: by a hash of the id, the same in every process and run."""

import zlib
from typing import NamedTuple


class Shard(NamedTuple):
    """One of `workers` shares; the first also serves whom nobody has seen, and what all viewers have in common."""

    worker: int = 0
    workers: int = 1

    def owns(self, user: str) -> bool:
        """Whether the user is of this share."""
        return self.workers == 1 or zlib.crc32(user.encode()) % self.workers == self.worker

    @property
    def is_primary(self) -> bool:
        """Whether this share has what belongs to no viewer."""
        return self.worker == 0
