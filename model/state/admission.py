"""Admission of titles that have not launched: their ids wait here until enough users have an event on them.

Anyone who can send events can invent title ids, so an event alone gives a title no row in the catalog. An id without a
launch gets its row once events of `min_users` distinct users name it. Until then it waits. Beyond `capacity` waiting
ids, the least recently used one is evicted and its events no longer count. Only hashes of ids are stored, so an entry
has at most TITLE_HASH_BYTES + 8 * `min_users` bytes in a checkpoint.

N waiting titles · U users of all waiting titles
"""

from collections import OrderedDict
from hashlib import blake2b
from typing import Any, Final

import numpy as np

TITLE_HASH_BYTES: Final = 16


class TitleAdmission:
    """The waiting titles, each with the distinct users that have an event on it."""

    def __init__(self, capacity: int, min_users: int) -> None:
        self.capacity, self.min_users = capacity, min_users
        # Hash of a title to hashes of users. The first title is evicted next: constant time only in an OrderedDict.
        self._users: OrderedDict[bytes, list[int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._users)

    def admit(self, title: str, user: str) -> bool:
        """Note an event of the user on the title. Returns True if the title is admitted; it then waits no longer."""
        key, user_hash = _title_hash(title), _user_hash(user)
        users = self._users.pop(key, [])
        if user_hash not in users:
            users.append(user_hash)
        if len(users) >= self.min_users:
            return True
        self._users[key] = users
        self._limit()
        return False

    def remove(self, title: str) -> None:
        """Remove the title if it waits, because it launched."""
        if self._users:
            self._users.pop(_title_hash(title), None)

    def erase_user(self, user: str) -> None:
        """Remove all data of one user, and the titles that no other user has an event on."""
        user_hash = _user_hash(user)
        for key in [key for key, users in self._users.items() if user_hash in users]:
            self._users[key].remove(user_hash)
            if not self._users[key]:
                del self._users[key]

    def state_dict(self) -> dict[str, Any]:
        users = list(self._users.values())
        return {
            "title_hash_N": np.frombuffer(b"".join(self._users), np.uint8).reshape(-1, TITLE_HASH_BYTES).copy(),
            "user_count_N": np.array([len(hashes) for hashes in users], np.int64),
            "user_hash_U": np.array([user_hash for hashes in users for user_hash in hashes], np.int64),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned; with a smaller capacity, the oldest entries are dropped."""
        ends_N = state["user_count_N"].cumsum()
        users = [hashes.tolist() for hashes in np.split(state["user_hash_U"], ends_N[:-1])]
        keys = [row.tobytes() for row in state["title_hash_N"]]
        self._users = OrderedDict(zip(keys, users[: len(keys)], strict=True))
        self._limit()

    def _limit(self) -> None:
        while len(self._users) > self.capacity:
            self._users.popitem(last=False)


def _title_hash(title: str) -> bytes:
    return blake2b(title.encode(), digest_size=TITLE_HASH_BYTES).digest()


def _user_hash(user: str) -> int:
    return int.from_bytes(blake2b(user.encode(), digest_size=8).digest(), "little", signed=True)
