"""What viewers are served: a hash a viewer in Redis, written forward only, and how a reader reads it.

    premiere:user:<id>    horizon:0, horizon:3, ..   JSON arrays of title ids, best first; by horizon (events of delay)
                          format                     of the hash
                          version                    number of the model version that ranked it
                          revision                   <newest source offset>.<version>.<newest launch offset>, 20 digits
                          log                        identity of the logs that these offsets are of
                          events, event_ms           events of the viewer it knows; append time of the newest (ms)
                          written_ms                 when it was written (ms)
    premiere:default      the same, for a viewer whom nobody has seen
    premiere:withdrawn    set of title ids that a reader subtracts: lists of absent viewers are not rewritten

A write compares its revision as text inside Redis, so that an older one never overwrites a newer one, whatever is
replayed; offsets of other logs do not compare, and the writer's log wins. Each call writes what had come by then, so a
snapshot has nothing left to flush. While Redis is gone the sink waits and tries again, which holds the flow back.
"""

import json
import logging
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import accumulate
from typing import Any, Final

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from prometheus_client import Counter, Histogram
from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from streaming.kafka.client import StreamError

log = logging.getLogger(__name__)

USER: Final = "premiere:user:"
DEFAULT: Final = "premiere:default"
WITHDRAWN: Final = "premiere:withdrawn"
LAUNCHES: Final = "premiere:launches"  # pub/sub channel: which lists a new title entered, as it happens
HORIZON: Final = "horizon:"
FORMAT: Final = 1  # of a hash: fields may be added; a change of what one means is another number
BATCH: Final = 256  # writes in one round trip
TTL: Final = timedelta(days=30)
PATIENCE: Final = 300.0  # seconds without Redis after which the flow gives up
FIRST_WAIT: Final = 0.1  # seconds; doubled at each further try
LONGEST_WAIT: Final = 5.0  # seconds

_BUCKETS: Final = tuple(round(0.005 * 1.25**i, 4) for i in range(47))  # 5 ms to 143 s
FRESHNESS: Final = Histogram(
    "premiere_freshness_seconds", "from a record's append time to its effect in Redis", ["kind"], buckets=_BUCKETS
)
WRITTEN: Final = Counter("premiere_predictions", "predictions written, by what caused them", ["cause"])
OLDER: Final = Counter("premiere_predictions_older", "predictions not written because a newer one was there")
RETRIES: Final = Counter("premiere_redis_retries", "writes of predictions that were tried again")

_WRITE: Final = """
local known = redis.call('HMGET', KEYS[1], 'log', 'revision')
if known[1] == ARGV[1] and known[2] and known[2] > ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'log', ARGV[1], 'revision', ARGV[2], unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""
_REPLACE: Final = """
redis.call('DEL', KEYS[1])
for i = 1, #ARGV do redis.call('SADD', KEYS[1], ARGV[i]) end
return 1
"""


@dataclass(frozen=True)
class Prediction:
    """A viewer's lists by horizon (`user` None: for viewers nobody has seen), and what they know.

    revision: newest source offset of the user, version, newest launch's offset · fresh: append times (ms) of the events
    that it is the first to know · entered: titles that came into the lists by their launch, with its append time (ms)
    """

    user: str | None
    lists: dict[int, list[str]]
    version: int
    revision: tuple[int, int, int]
    events: int
    event_ms: int
    cause: str = "refresh"  # or "event", "launch"
    fresh: tuple[int, ...] = ()
    entered: tuple[tuple[str, int], ...] = ()

    def places(self, title: str) -> dict[int, int]:
        """The title's place, from 1, in each list that holds it, by horizon."""
        return {horizon: titles.index(title) + 1 for horizon, titles in self.lists.items() if title in titles}


@dataclass(frozen=True)
class Withdrawn:
    """All titles that are withdrawn now."""

    titles: frozenset[str]


@dataclass(frozen=True)
class Placed:
    """A launch has been tried on every list that it could enter, of those that this worker of `workers` writes."""

    title: str
    entered: int  # lists
    worker: int = 0
    workers: int = 1


@dataclass(frozen=True)
class Erased:
    """A viewer was forgotten: nothing stays but what keeps an older write from coming back, a tombstone."""

    user: str
    offset: int  # of the request in `user-events`


Item = Prediction | Erased | Withdrawn | Placed


class RedisGoneError(StreamError):
    """Redis did not answer for longer than the flow waits; the message says what to do."""


def connect(url: str) -> Redis:
    """A client whose waits stay below seconds: whoever writes decides how long to go on trying."""
    retry = Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), 3)
    return Redis.from_url(url, socket_timeout=2, socket_connect_timeout=1, health_check_interval=30, retry=retry)


def key(user: str | None) -> str:
    """Where a viewer's predictions lie."""
    return DEFAULT if user is None else USER + user


def read(client: Redis, user: str, events_since: int = 0) -> list[str]:
    """What to show `user`, best first, where `events_since` events have passed since the lists were written.

    The list of the longest horizon that has passed is taken; a viewer nobody has seen, or who was forgotten, gets the
    default. [] before the first version.
    """
    lists = _lists(client, user) or _lists(client, None)
    passed = [horizon for horizon in lists if horizon <= events_since]
    if not passed:
        return []
    titles: list[str] = json.loads(lists[max(passed)])
    gone: Any = client.smismember(WITHDRAWN, titles) if titles else []
    return [title for title, withdrawn in zip(titles, gone, strict=True) if not withdrawn]


def _lists(client: Redis, user: str | None) -> dict[int, Any]:
    """What lies under a viewer's key by horizon; nothing where there is none, or a tombstone."""
    found: Any = client.hgetall(key(user))
    names = {_text(name): value for name, value in found.items()}
    return {int(name.removeprefix(HORIZON)): value for name, value in names.items() if name.startswith(HORIZON)}


def revision(parts: Sequence[int]) -> str:
    """A revision as it is compared: text."""
    return ".".join(f"{part:020d}" for part in parts)


class RedisSink(FixedPartitionedSink[list[Item], None]):
    """Predictions into Redis, at once; items of the stream are (key, list of them), a key's keep their order.

    `identity` names the logs that revisions are of. Keys expire after `ttl` without a write, give or take a tenth, so
    that those written together do not go together.
    """

    def __init__(
        self,
        url: str,
        *,
        identity: str = "",
        ttl: timedelta = TTL,
        patience: float = PATIENCE,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.url, self.identity, self.ttl, self.patience = url, identity, ttl.total_seconds(), patience
        self.stop, self.clock = stop or threading.Event(), clock

    def list_parts(self) -> list[str]:
        """One writer."""
        return ["0"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "_Part":
        """A connection."""
        return _Part(self)


class _Part(StatefulSinkPartition[list[Item], None]):
    def __init__(self, sink: RedisSink) -> None:
        self.sink, self.client = sink, connect(sink.url)
        self.scripts: tuple[str, ...] = ()  # sha of _WRITE and _REPLACE, once Redis has them

    def write_batch(self, values: list[list[Item]]) -> None:
        """Write all of it. Raises RedisGoneError."""
        items = [item for batch in values for item in batch]
        for start in range(0, len(items), BATCH):
            self._until_written(items[start : start + BATCH])

    def snapshot(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Give the connection back."""
        self.client.close()

    def _until_written(self, items: Sequence[Item]) -> None:
        wait, since = FIRST_WAIT, time.monotonic()
        while True:
            try:
                self._count(items, self._write(items))
                break
            except NoScriptError:  # a Redis started anew has forgotten them
                self.scripts = ()
            except (RedisConnectionError, RedisTimeoutError) as error:
                away = time.monotonic() - since
                if away >= self.sink.patience or self.sink.stop.is_set():
                    raise RedisGoneError(
                        f"Redis did not answer for {away:.0f} s ({error}): start it again, or correct"
                        " PREMIERE_REDIS_URL, then start this flow again; it goes on where it was."
                    ) from error
                if wait == FIRST_WAIT:
                    log.warning("Redis does not answer (%s); waiting for it", error)
                RETRIES.inc()
                self.sink.stop.wait(min(wait, max(0.0, self.sink.patience - away)))
                wait = min(2 * wait, LONGEST_WAIT)
        if wait > FIRST_WAIT:
            log.warning("Redis answers again after %.1f s", time.monotonic() - since)

    def _write(self, items: Sequence[Item]) -> list[Any]:
        """One round trip; the answers, one an item: 0 where a newer revision was there."""
        if not self.scripts:
            self.scripts = tuple(str(self.client.script_load(script)) for script in (_WRITE, _REPLACE))
        pipeline = self.client.pipeline(transaction=False)
        for item in items:
            if isinstance(item, Prediction):
                pipeline.evalsha(self.scripts[0], 1, key(item.user), *self._arguments(item))
            elif isinstance(item, Erased):
                pipeline.evalsha(self.scripts[0], 1, key(item.user), *self._order(item.user, (item.offset, 0, 0)))
            elif isinstance(item, Withdrawn):
                pipeline.evalsha(self.scripts[1], 1, WITHDRAWN, *sorted(item.titles))
            else:
                pipeline.publish(LAUNCHES, json.dumps(asdict(item)))
            for told in _entered(item):
                pipeline.publish(LAUNCHES, json.dumps(told))
        answers = pipeline.execute()
        firsts = accumulate((1 + len(_entered(item)) for item in items), initial=0)
        return [answers[first] for first in list(firsts)[:-1]]

    def _order(self, user: str | None, parts: Sequence[int]) -> list[str | int]:
        """What decides about a write, and how long it lives."""
        ttl = self.sink.ttl * (0.9 + 0.2 * (zlib.crc32(key(user).encode()) % 1000) / 1000)
        return [self.sink.identity, revision(parts), max(1, round(ttl))]

    def _arguments(self, item: Prediction) -> list[str | int]:
        fields = self._order(item.user, item.revision)
        for horizon, titles in item.lists.items():
            fields += [f"{HORIZON}{horizon}", json.dumps(titles, ensure_ascii=False, separators=(",", ":"))]
        fields += ["format", FORMAT, "version", item.version, "events", item.events, "event_ms", item.event_ms]
        return [*fields, "written_ms", round(self.sink.clock() * 1000)]

    def _count(self, items: Sequence[Item], answers: Sequence[Any]) -> None:
        now = self.sink.clock()
        for item, answer in zip(items, answers, strict=True):
            if not isinstance(item, Prediction | Erased):
                continue
            if not answer:
                OLDER.inc()
                continue
            if isinstance(item, Erased):
                WRITTEN.labels("forget").inc()
                continue
            WRITTEN.labels(item.cause).inc()
            for appended in item.fresh:
                FRESHNESS.labels("event").observe(max(0.0, now - appended / 1000))
            for _, appended in item.entered:
                FRESHNESS.labels("launch").observe(max(0.0, now - appended / 1000))


def _entered(item: Item) -> list[dict[str, Any]]:
    """What the channel is told: a title's place, from 1, in each list of the viewer that it came into."""
    if not isinstance(item, Prediction):
        return []
    return [{"title": title, "user": item.user, "places": item.places(title)} for title, _ in item.entered]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
