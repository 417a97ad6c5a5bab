"""Show what running flows serve: a user's list, and how one event or one launch changes the lists.

`send_event` and `launch_title` produce one record like any producer, and then only read Redis. The latency that they
report is a client's: from the record's hand-over to the Kafka client until its effect is visible in Redis.
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

from features.redis_address import connect
from infra.data.producer import Delivery
from infra.errors import PremiereError
from infra.settings import Settings
from streaming.records import Event, Launch, action_code, to_json
from streaming.stores import list_client
from streaming.stores.retry import DEFAULT_REMEDY, REFUSED_REMEDIES, answer_of, error_code, is_outage
from streaming.topics import TITLE_LAUNCHES, USER_EVENTS

PRINTED_TITLES: Final = 10  # of a list
PRINTED_USERS: Final = 20  # whose lists a launch entered
PRINTED_HISTORY: Final = 5  # recent titles of such a user
POLL_INTERVAL_S: Final = 0.005
PrintLine = Callable[[str], object]


class InspectError(PremiereError):
    """There is no result; the message states the reason."""


class ListEntry(NamedTuple):
    """A list that a launched title entered."""

    user: str | None  # None: the default list, for unknown users
    position: int  # best position over the horizons, from 1
    ms: float  # since the launch was produced


@contextmanager
def open_redis(settings: Settings) -> Iterator[Any]:
    """A client. Raises InspectError if Redis does not answer or has no lists yet."""
    try:
        with closing(connect(settings.require_redis_url())) as client:
            if not client.exists(list_client.key(None, settings.namespace)):
                raise InspectError(
                    "There are no lists in Redis yet: the first model version writes them (`premiere status`)."
                )
            yield client
    except RedisError as error:
        if is_outage(error):
            raise InspectError(f"Redis does not answer ({error}): check that it is running.") from error
        remedy = REFUSED_REMEDIES.get(error_code(error), DEFAULT_REMEDY)
        raise InspectError(f"Redis refused a command ({answer_of(error)}): {remedy}.") from error


def print_recommendations(
    settings: Settings, user: str, events_since: int, as_json: bool, print_line: PrintLine
) -> None:
    """Print a user's list as it is after `events_since` more events. Raises InspectError."""
    with open_redis(settings) as client:
        titles = list_client.read(client, user, events_since, settings.namespace)
        facts = _list_facts(client, user, settings.namespace)
    known, names = bool(facts), title_names(settings, titles)
    if as_json:
        listed = [{"title": title, "name": names[title]} for title in titles]
        print_line(json.dumps({"user": user, "known": known, **facts, "titles": listed}, ensure_ascii=False))
        return
    if known:
        age = time.time() - int(facts["written_ms"]) / 1000
        seen = f"{facts['events']} known events, version {facts['version']}, written {age:.1f} s ago"
        print_line(printable(f"{user}: {seen}."))
    else:
        print_line(printable(f"{user} is an unknown user, who gets the default list."))
    print_titles(titles, names, print_line)


def launch_title(settings: Settings, record: Launch, timeout: float, print_line: PrintLine) -> list[ListEntry]:
    """Produce a launch and print the lists that the title enters, best first. Raises InspectError after `timeout` s."""
    with open_redis(settings) as client, closing(client.pubsub(ignore_subscribe_messages=True)) as channel:
        channel.subscribe(list_client.launch_channel(settings.namespace))
        channel.get_message(timeout=1)  # the confirmation: no message is missed from here on
        started = _produce(settings, TITLE_LAUNCHES, record.title, to_json(record))
        entries = list(_list_entries(channel, record.title, started, timeout))
    entries.sort(key=lambda entry: (entry.position, entry.ms))
    print_line(printable(f"{record.name or record.title} ({record.title}) entered {len(entries)} lists."))
    if entries:
        first, last = min(entry.ms for entry in entries), max(entry.ms for entry in entries)
        print_line(f"First after {first:.0f} ms, last after {last:.0f} ms. Position, user, recent titles of the user:")
    printed = entries[:PRINTED_USERS]
    history = recent_titles(settings, [entry.user for entry in printed if entry.user is not None])
    for entry in printed:
        user = "unknown users" if entry.user is None else entry.user
        titles = ", ".join(history.get(entry.user or "", ()))
        print_line(printable(f"{entry.position:>4}  {user:<16} {titles}".rstrip()))
    return entries


def send_event(settings: Settings, event: Event, timeout: float, print_line: PrintLine) -> float:
    """Produce an event and print the user's list when it changes; return the ms until then. Raises InspectError."""
    try:
        action_code(event)
    except KeyError:
        raise InspectError(f"There is no action {event.action}: docs/ lists them, for example `play`.") from None
    with open_redis(settings) as client:
        namespace = settings.namespace
        before = list_client.read(client, event.user, namespace=namespace)
        newest_event = _newest_event(client, event.user, namespace)
        started = _produce(settings, USER_EVENTS, event.user, to_json(event))
        while _newest_event(client, event.user, namespace) == newest_event:
            _check_timeout(started, timeout, "the list did not change")
            time.sleep(POLL_INTERVAL_S)
        ms = (time.monotonic() - started) * 1000
        after = list_client.read(client, event.user, namespace=namespace)
    head = before[:PRINTED_TITLES]
    names = title_names(settings, [*head, *after[:PRINTED_TITLES], event.title])
    print_line(printable(f"{event.user}: {names[event.title]}. The list after {ms:.0f} ms (+ marks new entries):"))
    print_titles(after, names, print_line, {*after} - {*head})
    return ms


def print_titles(
    titles: Sequence[str], names: dict[str, str], print_line: PrintLine, marked: set[str] | None = None
) -> None:
    """Print the first titles of a list, one a line."""
    for position, title in enumerate(titles[:PRINTED_TITLES], 1):
        print_line(printable(f"{position:>4} {'+' if title in (marked or ()) else ' '} {names[title]}  [{title}]"))


def printable(text: str) -> str:
    """The text without control characters: a name from a producer must not send commands to the terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def title_names(settings: Settings, titles: Sequence[str]) -> dict[str, str]:
    """The names of titles from the feature store; the id if a title has no name."""
    rows = _online_features(settings, "title_semantics", ("name", "year"), "title_id", titles)
    years = {title: f" ({year})" if year and str(year) not in (name or "") else "" for title, (name, year) in rows}
    return {title: name + years[title] if name else title for title, (name, _) in rows}


def recent_titles(settings: Settings, users: Sequence[str]) -> dict[str, list[str]]:
    """The names of users' most recent titles, newest first, from the feature store."""
    rows = _online_features(settings, "user_activity", ("recent_titles",), "user_id", users)
    recent = {user: (titles or [])[:PRINTED_HISTORY] for user, (titles,) in rows}
    names = title_names(settings, [title for titles in recent.values() for title in titles])
    return {user: [names[title] for title in titles] for user, titles in recent.items()}


def slug(name: str) -> str:
    """A title id derived from a name."""
    return re.sub(r"\W+", "-", name.lower()).strip("-_") or f"title-{zlib.crc32(name.encode())}"


def _online_features(
    settings: Settings, view: str, features: Sequence[str], key: str, ids: Sequence[str]
) -> list[tuple[str, tuple[Any, ...]]]:
    """The online features of entities, read as any Feast client reads them."""
    from features.store import StoreError, open_store

    if not ids:
        return []
    try:
        store = open_store(settings.require_redis_url(), settings.data_dir.resolve() / "feast", settings.namespace)
    except StoreError as error:
        raise InspectError(str(error)) from error
    unique = list(dict.fromkeys(ids))
    references = [f"{view}:{feature}" for feature in features]
    columns = store.get_online_features(references, [{key: entity} for entity in unique]).to_dict()
    return list(zip(unique, zip(*(columns[feature] for feature in features), strict=True), strict=True))


def _produce(settings: Settings, topic: str, key: str, value: bytes) -> float:
    """Produce one record; the time when it was handed to the client, monotonic seconds."""
    delivery = Delivery(settings.kafka_config())
    try:
        started = time.monotonic()
        delivery.send(topic, key, value)
        delivery.flush()
    finally:
        delivery.close()
    return started


def _list_entries(channel: Any, title: str, started: float, timeout: float) -> Iterator[ListEntry]:
    """The lists that a title enters, until all workers of `publish` have scored it."""
    done: set[int] = set()  # workers that have scored the title for all of their users
    problem = "no list was scored; a launch that changes nothing is not forwarded"
    while True:
        _check_timeout(started, timeout, problem)
        message = channel.get_message(timeout=0.1)
        fields = json.loads(message["data"]) if message else {}
        if fields.get("title") != title:
            continue
        if "entered" in fields:
            done.add(fields["worker"])
            if not (missing := sorted(set(range(fields["workers"])) - done)):
                return
            problem = f"no answer from the publish workers {', '.join(map(str, missing))}: they may have no version yet"
            continue
        yield ListEntry(fields["user"], min(fields["positions"].values()), (time.monotonic() - started) * 1000)


def _check_timeout(started: float, timeout: float, problem: str) -> None:
    if time.monotonic() - started > timeout:
        raise InspectError(
            f"No effect within {timeout:g} s ({problem}): `premiere status` shows whether all flows are running."
        )


def _list_facts(client: Redis, user: str, namespace: str) -> dict[str, Any]:
    fields = ["version", "events", "event_ms", "written_ms"]
    values: Any = client.hmget(list_client.key(user, namespace), fields)
    return {} if values[0] is None else {name: int(value) for name, value in zip(fields, values, strict=True)}


def _newest_event(client: Redis, user: str, namespace: str) -> tuple[int, int] | None:
    """Append time and offset of the newest event that the user's lists include; None if there is no key."""
    found = list_client.read_revision(client, user, namespace)
    return (found[1].appended, found[1].event_offset) if found else None
