"""Ask the running loop, as those do who build on it: what a viewer is served, what one event or one launch changes.

`emit` and `launch` produce one record like any producer and then only look at Redis: the milliseconds that they tell
are a client's, from handing the record to Kafka to seeing its effect.
"""

import json
import re
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final, NamedTuple

from redis import Redis
from redis.exceptions import RedisError

from infra.data.producer import Delivery
from infra.errors import PremiereError
from infra.settings import Settings
from streaming.records import Event, Launch, action_code, to_json
from streaming.stores import redis_lists
from streaming.topics import TITLE_LAUNCHES, USER_EVENTS

SHOWN: Final = 10  # titles of a list
TOLD: Final = 20  # viewers whose lists a launch entered
WATCHED: Final = 5  # titles that tell a viewer's taste
NAP: Final = 0.005  # seconds between two looks at Redis
Say = Callable[[str], object]


class AskError(PremiereError):
    """There is no answer; the message says why."""


class Entry(NamedTuple):
    """A viewer (None: those nobody has seen) whose list a launch entered: at which place, after how long."""

    user: str | None
    place: int
    ms: float


@contextmanager
def redis(settings: Settings) -> Iterator[Any]:
    """A client. Raises AskError where Redis does not answer or nothing was ever written."""
    try:
        with closing(redis_lists.connect(settings.redis())) as client:
            if not client.exists(redis_lists.DEFAULT):
                raise AskError(
                    "No predictions lie in Redis yet: they come with the learner's first version (`premiere status`)."
                )
            yield client
    except RedisError as error:
        raise AskError(f"Redis does not answer ({error}): is `premiere up` running?") from error


def recommend(settings: Settings, user: str, events_since: int, as_json: bool, say: Say) -> None:
    """Show what a viewer is served. Raises AskError."""
    with redis(settings) as client:
        titles = redis_lists.read(client, user, events_since)
        facts = _facts(client, user)
    known, name = bool(facts), names(settings, titles)
    if as_json:
        listed = [{"title": title, "name": name[title]} for title in titles]
        say(json.dumps({"user": user, "known": known, **facts, "titles": listed}, ensure_ascii=False))
        return
    if known:
        ago = time.time() - int(facts["written_ms"]) / 1000
        say(f"{user}: {facts['events']} events known, by version {facts['version']}, written {ago:.1f} s ago.")
    else:
        say(f"{user} has not been seen: this is what every new viewer is served.")
    show(titles, name, say)


def launch(settings: Settings, told: Launch, wait: float, say: Say) -> list[Entry]:
    """Emit a launch and follow it into Redis: the lists it entered, by place. Raises AskError after `wait` seconds."""
    with redis(settings) as client, closing(client.pubsub(ignore_subscribe_messages=True)) as channel:
        channel.subscribe(redis_lists.LAUNCHES)
        channel.get_message(timeout=1)  # the confirmation: from here on nothing is missed
        began = _send(settings, TITLE_LAUNCHES, told.title, to_json(told))
        entries = list(_entries(channel, told.title, began, wait))
    entries.sort(key=lambda entry: (entry.place, entry.ms))
    say(f"{told.name or told.title} ({told.title}) entered {len(entries)} lists.")
    if entries:
        first, last = min(entry.ms for entry in entries), max(entry.ms for entry in entries)
        say(f"The first after {first:.0f} ms, the last after {last:.0f} ms. Place, viewer, what they did last:")
    users = [entry.user for entry in entries[:TOLD] if entry.user is not None]
    taste = watched(settings, users)
    for entry in entries[:TOLD]:
        viewer = "new viewers" if entry.user is None else entry.user
        say(f"{entry.place:>4}  {viewer:<16} {', '.join(taste.get(entry.user or '', ()))}".rstrip())
    return entries


def emit(settings: Settings, event: Event, wait: float, say: Say) -> float:
    """Emit an event and follow it into Redis: milliseconds until its viewer's list knew it. Raises AskError."""
    try:
        action_code(event)
    except KeyError:
        raise AskError(f"There is no action {event.action}: docs/ lists them, `play` is one.") from None
    with redis(settings) as client:
        before, known = redis_lists.read(client, event.user), _newest(client, event.user)
        began = _send(settings, USER_EVENTS, event.user, to_json(event))
        while _newest(client, event.user) == known:
            _hurry(began, wait, "the list did not change")
            time.sleep(NAP)
        ms = (time.monotonic() - began) * 1000
        after = redis_lists.read(client, event.user)
    name = names(settings, [*before[:SHOWN], *after[:SHOWN], event.title])
    say(f"{event.user}: {name[event.title]}. After {ms:.0f} ms the list is, new entries marked:")
    show(after, name, say, {*after} - {*before[:SHOWN]})
    return ms


def show(titles: Sequence[str], name: dict[str, str], say: Say, marked: set[str] | None = None) -> None:
    """The head of a list, a line a title."""
    for place, title in enumerate(titles[:SHOWN], 1):
        say(f"{place:>4} {'+' if title in (marked or ()) else ' '} {name[title]}  [{title}]")


def names(settings: Settings, titles: Sequence[str]) -> dict[str, str]:
    """The titles' names from the feature store; the id of one that has none."""
    found = _features(settings, "title_semantics", ("name", "year"), "title_id", titles)
    years = {title: f" ({year})" if year and str(year) not in (name or "") else "" for title, (name, year) in found}
    return {title: name + years[title] if name else title for title, (name, _) in found}


def watched(settings: Settings, users: Sequence[str]) -> dict[str, list[str]]:
    """The names of what users did last, newest first, from the feature store."""
    found = _features(settings, "user_activity", ("recent_titles",), "user_id", users)
    recent = {user: (titles or [])[:WATCHED] for user, (titles,) in found}
    name = names(settings, [title for titles in recent.values() for title in titles])
    return {user: [name[title] for title in titles] for user, titles in recent.items()}


def slug(name: str) -> str:
    """An id made of a name."""
    return re.sub(r"\W+", "-", name.lower()).strip("-_") or f"title-{zlib.crc32(name.encode())}"


def _features(
    settings: Settings, view: str, features: Sequence[str], key: str, ids: Sequence[str]
) -> list[tuple[str, tuple[Any, ...]]]:
    """Online features of some entities, as any program reads them."""
    from features.store import StoreError, open_store

    if not ids:
        return []
    try:
        store = open_store(settings.redis(), settings.data_dir.resolve() / "feast")
    except StoreError as error:
        raise AskError(str(error)) from error
    unique = list(dict.fromkeys(ids))
    wanted = [f"{view}:{feature}" for feature in features]
    rows = store.get_online_features(wanted, [{key: one} for one in unique]).to_dict()
    return list(zip(unique, zip(*(rows[feature] for feature in features), strict=True), strict=True))


def _send(settings: Settings, topic: str, key: str, value: bytes) -> float:
    """Produce one record; when it was handed over."""
    delivery = Delivery(settings.kafka())
    try:
        began = time.monotonic()
        delivery.send(topic, key, value)
        delivery.flush()
    finally:
        delivery.close()
    return began


def _entries(channel: Any, title: str, began: float, wait: float) -> Iterator[Entry]:
    """What the channel tells of a launch, until it was tried on everybody."""
    done: set[int] = set()  # workers of `publish` that have tried it on all of theirs
    silent = "no list was tried; a launch that says nothing new is not passed on"
    while True:
        _hurry(began, wait, silent)
        message = channel.get_message(timeout=0.1)
        told = json.loads(message["data"]) if message else {}
        if told.get("title") != title:
            continue
        if "entered" in told:
            done.add(told["worker"])
            if not (left := sorted(set(range(told["workers"])) - done)):
                return
            silent = f"of publish's workers {', '.join(map(str, left))} did not answer: have they a version?"
            continue
        yield Entry(told["user"], min(told["places"].values()), (time.monotonic() - began) * 1000)


def _hurry(began: float, wait: float, what: str) -> None:
    if time.monotonic() - began > wait:
        raise AskError(f"Nothing came of it within {wait:g} s ({what}): `premiere status` shows whether all flows run.")


def _facts(client: Redis, user: str) -> dict[str, Any]:
    fields = ["version", "events", "event_ms", "written_ms"]
    found: Any = client.hmget(redis_lists.key(user), fields)
    return {} if found[0] is None else {name: int(value) for name, value in zip(fields, found, strict=True)}


def _newest(client: Redis, user: str) -> bytes:
    """The part of a revision that the viewer's own events move."""
    found: Any = client.hget(redis_lists.key(user), "revision")
    return (found or b"").split(b".")[0]
