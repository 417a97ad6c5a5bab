"""Writes users' lists to Redis. Keys and fields are described in `streaming/stores/list_client.py`, which reads them.

A script inside Redis compares the revision of each write with the stored one, so an older write never overwrites a
newer one, whatever is reprocessed. Revisions of different logs cannot be compared: the writer's log wins. The script
refuses a process that was replaced (`streaming/stores/fence.py`), of whatever log. Each call writes everything at once,
so a snapshot has nothing left to flush. While Redis is unavailable the sink retries, which holds the flow back
(`streaming/stores/retry.py`).
"""

import json
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from prometheus_client import Counter, Histogram
from redis.exceptions import NoScriptError

from features.redis_address import connect
from streaming.kafka.ownership import SOLE_PROCESS, Owner
from streaming.stores import list_client
from streaming.stores.fence import FENCE, fence_arguments, raise_if_refused
from streaming.stores.list_client import HORIZON_FIELD_PREFIX, NAMESPACE, Revision, format_revision
from streaming.stores.retry import MAX_OUTAGE_S, retry_until_available
from streaming.stores.withdrawn_set import WithdrawnSet

HASH_FORMAT: Final = 1  # fields may be added; a changed meaning needs a new number
WRITES_PER_ROUND_TRIP: Final = 256
LIST_TTL: Final = timedelta(days=30)
MAX_REPEATED_ERASURES: Final = 10_000  # after a reconnect
MAX_OFFSET: Final = 2**63 - 1  # of a request in a revision: it also covers the events appended in the same millisecond

_BUCKETS: Final = tuple(round(0.005 * 1.25**i, 4) for i in range(47))  # 5 ms to 143 s
END_TO_END_LATENCY: Final = Histogram(
    "premiere_end_to_end_latency_seconds",
    "Time from a record's append to its write in Redis.",
    ["kind"],
    buckets=_BUCKETS,
)
LISTS_WRITTEN: Final = Counter("premiere_list_writes_total", "Lists written, by cause.", ["cause"])
STALE_LIST_WRITES: Final = Counter(
    "premiere_stale_list_writes_total", "Lists not written because Redis already had a newer one."
)
WRITE_RETRIES: Final = Counter("premiere_redis_retries_total", "Retried writes to Redis.")

_WRITE_IF_NEWER: Final = f"""{FENCE}
local known = redis.call('HMGET', KEYS[1], 'log', 'revision')
if known[1] == ARGV[1] and known[2] and known[2] > ARGV[2] then return 0 end
if #ARGV == 3 and not known[2] then return 1 end -- an erased user without lists needs no marker
if #ARGV > 3 then redis.call('HSET', KEYS[1], 'log', ARGV[1]) end -- out of memory: Redis refuses only a first write
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'log', ARGV[1], 'revision', ARGV[2], unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""


@dataclass(frozen=True)
class Prediction:
    """A user's lists, and the events and versions that they include."""

    user: str | None  # None: the lists for unknown users
    lists: dict[int, list[str]]  # titles by horizon, best first
    version: int  # number of the model version
    revision: tuple[int, int, int, int]  # see list_client.Revision
    events: int  # events of the user so far
    event_ms: int  # append time of the newest, ms
    cause: str = "refresh"  # or "event", "launch"
    new_events: tuple[int, ...] = ()  # append times (ms) of the events that no earlier lists included
    entered: tuple[tuple[str, int], ...] = ()  # titles that a launch put into the lists, with its append time (ms)

    def positions(self, title: str) -> dict[int, int]:
        """The title's position, from 1, in each list that contains it, by horizon."""
        return {horizon: titles.index(title) + 1 for horizon, titles in self.lists.items() if title in titles}


@dataclass(frozen=True)
class WithdrawnTitles:
    """All titles that are withdrawn now."""

    titles: frozenset[str]
    revision: int = 0  # stamp of the newest title that it includes


@dataclass(frozen=True)
class LaunchCompleted:
    """A worker has tried a launch on all lists of its shard that it could enter; published on the channel."""

    title: str
    entered: int  # number of lists that it entered
    worker: int = 0
    workers: int = 1


@dataclass(frozen=True)
class ErasedUser:
    """A user was erased: an erasure marker replaces the lists, so that an older write cannot bring them back."""

    user: str
    appended: int  # append time of the request, ms


RedisWrite = Prediction | ErasedUser | WithdrawnTitles | LaunchCompleted


class RedisSink(FixedPartitionedSink[list[RedisWrite], None]):
    """Writes lists to Redis at once. Stream items are (key, writes); writes of one key keep their order."""

    def __init__(
        self,
        url: str,
        *,
        log_identity: str = "",
        ttl: timedelta = LIST_TTL,
        max_outage_s: float = MAX_OUTAGE_S,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.time,
        namespace: str = NAMESPACE,
        owner: Owner = SOLE_PROCESS,
    ) -> None:
        """`log_identity` names the logs that the revisions belong to.

        Keys expire after `ttl` without a write, plus or minus 10 %, so that keys written together expire apart. The
        sink retries for `max_outage_s` seconds or until `stop` is set.
        """
        self.url, self.log_identity, self.ttl, self.max_outage_s = url, log_identity, ttl.total_seconds(), max_outage_s
        self.stop, self.clock, self.namespace = stop or threading.Event(), clock, namespace
        self.owner = owner

    def list_parts(self) -> list[str]:
        """One partition: there is one writer."""
        return ["0"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "_Partition":
        """Open a connection."""
        return _Partition(self, step_id)


class _Partition(StatefulSinkPartition[list[RedisWrite], None]):
    def __init__(self, sink: RedisSink, step_id: str) -> None:
        self.sink, self.step_id, self.client = sink, step_id, connect(sink.url)
        self.withdrawn_set = WithdrawnSet(self.client, sink.log_identity, sink.namespace, sink.owner)
        self.script_hash = ""  # of _WRITE_IF_NEWER, once Redis has loaded it
        self.erasures: deque[ErasedUser] = deque(maxlen=MAX_REPEATED_ERASURES)  # the newest that are written
        self.erasures_checked_at = 0  # number of reconnects at their last write

    def write_batch(self, values: list[list[RedisWrite]]) -> None:
        """Write everything. Raises RedisUnavailableError, RedisRefusedError, OwnershipError."""
        writes = [one for batch in values for one in batch]
        for start in range(0, len(writes), WRITES_PER_ROUND_TRIP):
            chunk = writes[start : start + WRITES_PER_ROUND_TRIP]
            write = partial(self._write, chunk)
            answers = retry_until_available(write, self.step_id, self._on_retry, self.sink.max_outage_s, self.sink.stop)
            self._update_metrics(chunk, answers)

    def snapshot(self) -> None:
        """There is nothing to flush."""

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def _on_retry(self) -> None:
        WRITE_RETRIES.inc()
        self.client.connection_pool.disconnect()  # after a failover the address may lead to another server

    def _write(self, writes: Sequence[RedisWrite]) -> list[Any]:
        """Write the withdrawn titles, and all else in one round trip.

        Returns one answer per write, 0 if a newer revision was stored.
        """
        self.sink.owner.check()
        self.withdrawn_set.watch_connection()
        for newest in [write for write in writes if isinstance(write, WithdrawnTitles)][-1:]:
            self.withdrawn_set.write(newest.titles, newest.revision)
        while True:
            try:
                answers = self._execute(writes)
                self._repeat_erasures()
            except NoScriptError:  # Redis was restarted and lost the script
                self.script_hash = ""
            else:
                self.withdrawn_set.repeat_after_reconnect()
                self.erasures += [write for write in writes if isinstance(write, ErasedUser)]
                return answers

    def _repeat_erasures(self) -> None:
        """Write the newest erasures again if the connection is a new one: Redis may have lost its last second."""
        reconnects = self.withdrawn_set.reconnects
        if reconnects != self.erasures_checked_at:
            self._execute(list(self.erasures))
            self.erasures_checked_at = reconnects

    def _execute(self, writes: Sequence[RedisWrite]) -> list[Any]:
        if not self.script_hash:
            self.script_hash = str(self.client.script_load(_WRITE_IF_NEWER))
        owners, fence = list_client.owners_key(self.sink.namespace), fence_arguments(self.sink.owner)
        channel = list_client.launch_channel(self.sink.namespace)
        pipeline, firsts = self.client.pipeline(transaction=False), list[int | None]()  # first command of each write
        for write in writes:
            firsts.append(None if isinstance(write, WithdrawnTitles) else len(pipeline))
            if isinstance(write, Prediction):
                arguments = self._prediction_arguments(write)
                pipeline.evalsha(self.script_hash, 2, self._key(write), owners, *arguments, *fence)
            elif isinstance(write, ErasedUser):
                arguments = self._revision_arguments(write, Revision(write.appended, MAX_OFFSET, 0, 0))
                pipeline.evalsha(self.script_hash, 2, self._key(write), owners, *arguments, *fence)
            elif isinstance(write, LaunchCompleted):
                pipeline.publish(channel, json.dumps(asdict(write)))
            for message in _launch_messages(write):
                pipeline.publish(channel, json.dumps(message))
        answers = pipeline.execute()
        for answer in answers:
            raise_if_refused(answer)
        return [1 if first is None else answers[first] for first in firsts]

    def _key(self, write: Prediction | ErasedUser) -> str:
        return list_client.key(write.user, self.sink.namespace)

    def _revision_arguments(self, write: Prediction | ErasedUser, revision: Revision) -> list[str | int]:
        """The script's first arguments: log identity, revision and time to live."""
        spread = 0.9 + 0.2 * (zlib.crc32(self._key(write).encode()) % 1000) / 1000
        expiry = max(1, round(self.sink.ttl * spread))
        return [self.sink.log_identity, format_revision(revision), expiry]

    def _prediction_arguments(self, write: Prediction) -> list[str | int]:
        arguments = self._revision_arguments(write, Revision(*write.revision))
        for horizon, titles in write.lists.items():
            encoded = json.dumps(titles, ensure_ascii=False, separators=(",", ":"))
            arguments += [f"{HORIZON_FIELD_PREFIX}{horizon}", encoded]
        arguments += ["format", HASH_FORMAT, "version", write.version]
        arguments += ["events", write.events, "event_ms", write.event_ms]
        return [*arguments, "written_ms", round(self.sink.clock() * 1000)]

    def _update_metrics(self, writes: Sequence[RedisWrite], answers: Sequence[Any]) -> None:
        now = self.sink.clock()
        for write, answer in zip(writes, answers, strict=True):
            if not isinstance(write, Prediction | ErasedUser):
                continue
            if not answer:
                STALE_LIST_WRITES.inc()
                continue
            if isinstance(write, ErasedUser):
                LISTS_WRITTEN.labels("erasure").inc()
                continue
            LISTS_WRITTEN.labels(write.cause).inc()
            for appended in write.new_events:
                END_TO_END_LATENCY.labels("event").observe(max(0.0, now - appended / 1000))
            for _, appended in write.entered:
                END_TO_END_LATENCY.labels("launch").observe(max(0.0, now - appended / 1000))


def _launch_messages(write: RedisWrite) -> list[dict[str, Any]]:
    """Messages for the channel: a launched title's position, from 1, in each of the user's lists that it entered."""
    if not isinstance(write, Prediction):
        return []
    return [{"title": title, "user": write.user, "positions": write.positions(title)} for title, _ in write.entered]
