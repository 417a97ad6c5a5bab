"""Writes the set of withdrawn titles to Redis (keys: `streaming/stores/list_client.py`).

A change is written as a difference. One script compares its revision, the newest launch that it includes, with the
stored one. So a late write of an older set never brings a withdrawn title back. Revisions of different logs cannot be
compared: the writer's log wins.

The whole set is written at the start, after a reconnect (Redis may have lost its last second), and where changes are
missing in Redis. It is written in chunks: first all additions, then all removals, so a reader never misses a title
that stays withdrawn. Its first step stores the revision, which stops older writers; `complete` follows after the last.
"""

import logging
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any, Final

from redis import Redis

from streaming.kafka.ownership import SOLE_PROCESS, Owner
from streaming.stores.fence import FENCE, fence_arguments, raise_if_refused
from streaming.stores.list_client import NAMESPACE, owners_key, withdrawn_key, withdrawn_revision_key

MAX_CHUNK_TITLES: Final = 1000  # per call of the script
NO_BASE: Final = -1  # the call needs no earlier change in Redis

_UPDATE: Final = f"""{FENCE}
local known = redis.call('HMGET', KEYS[2], 'log', 'revision', 'complete')
local same_log = known[1] == ARGV[1]
local revision, base, added = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])
local function stored(field) return same_log and tonumber(field or '') or -1 end
if stored(known[2]) > revision then return 'newer' end
if stored(known[3]) < base then return 'missing' end
if not same_log then redis.call('HDEL', KEYS[2], 'complete') end
redis.call('HSET', KEYS[2], 'log', ARGV[1], 'revision', ARGV[2])
if added > 0 then redis.call('SADD', KEYS[1], unpack(ARGV, 6, 5 + added)) end
if #ARGV > 5 + added then redis.call('SREM', KEYS[1], unpack(ARGV, 6 + added)) end
if ARGV[4] == '1' then redis.call('HSET', KEYS[2], 'complete', ARGV[2]) end
return 'written'
"""

log: Final = logging.getLogger(__name__)


class WithdrawnSet:
    """The writer of the set. All methods are idempotent and raise redis errors."""

    def __init__(
        self, client: Redis, log_identity: str, namespace: str = NAMESPACE, owner: Owner = SOLE_PROCESS
    ) -> None:
        """`log_identity` names the log of the launches. Only one thread uses `client`, so it has one connection."""
        self.client, self.log_identity = client, log_identity
        self.owner, self.owners_key = owner, owners_key(namespace)
        self.key, self.revision_key = withdrawn_key(namespace), withdrawn_revision_key(namespace)
        self.written: tuple[frozenset[str], int] | None = None  # the last titles and their revision
        self._update_script = client.register_script(_UPDATE)
        self.reconnects, self._checked_at = 0, 0  # reconnects so far, and their number at the last check of the set
        self._is_watched = False

    def write(self, titles: frozenset[str], revision: int) -> None:
        """Make `titles` the withdrawn titles, unless Redis has a later revision."""
        self.watch_connection()
        before, base = self.written or (titles, NO_BASE)
        added, removed = titles - before, before - titles
        answer = "missing"
        if self.written is not None and len(added) + len(removed) <= MAX_CHUNK_TITLES:
            answer = self._update(revision, added, removed, base=base, last=True)
        if answer == "missing":
            answer = self._write_all(titles, revision)
        if answer == "newer":
            log.info("Redis has later withdrawn titles than revision %d: another process wrote them.", revision)
        self.written = titles, revision

    def repeat_after_reconnect(self) -> None:
        """Write the whole set again if the connection is a new one."""
        if self.written is not None and self.reconnects != self._checked_at:
            self._write_all(*self.written)

    def watch_connection(self) -> None:
        """Count the reconnects from now on."""
        if self._is_watched:
            return
        pool: Any = self.client.connection_pool
        connection = pool.get_connection()
        connection.register_connect_callback(self._on_reconnect)
        pool.release(connection)
        self._is_watched = True

    def _on_reconnect(self, _connection: Any) -> None:
        self.reconnects += 1

    def _write_all(self, titles: frozenset[str], revision: int) -> str:
        answer, reconnects = self._update(revision), self.reconnects
        if answer == "newer":
            self._checked_at = reconnects
            return answer
        found = self.client.sscan_iter(self.key, count=MAX_CHUNK_TITLES)
        stored = {title.decode() if isinstance(title, bytes) else title for title in found}
        for added in _chunks(titles - stored):
            answer = self._update(revision, added=added)
        for removed in _chunks(stored - titles):
            answer = self._update(revision, removed=removed)
        answer = self._update(revision, last=True)
        self._checked_at = reconnects
        return answer

    def _update(
        self,
        revision: int,
        added: Collection[str] = (),
        removed: Collection[str] = (),
        base: int = NO_BASE,
        last: bool = False,
    ) -> str:
        """Call the script; returns "written", "newer" or, if changes after `base` are not in Redis, "missing".

        `last` marks the set as complete at this revision.
        """
        arguments: list[str | int] = [self.log_identity, revision, base, int(last), len(added), *added, *removed]
        answer: Any = self._update_script(
            keys=[self.key, self.revision_key, self.owners_key], args=arguments + fence_arguments(self.owner)
        )
        raise_if_refused(answer)
        return answer.decode() if isinstance(answer, bytes) else str(answer)


def _chunks(titles: Collection[str]) -> Iterator[list[str]]:
    rest = iter(sorted(titles))
    while chunk := list(islice(rest, MAX_CHUNK_TITLES)):
        yield chunk
