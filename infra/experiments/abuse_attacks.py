"""The attacks of `make abuse`: what a hostile producer can send, and what it does to honest users.

An attack adds fake records to a copy of a world (infra/experiments/abuse_world.py) and is compared with the same world
without them, now and after RECOVERY_EVENTS further honest events. The producer of an attack can invent users, titles
and texts, and choose event times, but cannot backdate the records of another user.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np

from features.text_encoders import Encoder
from infra.experiments.abuse_world import (
    NEW_TITLE_SLOTS,
    TOP,
    Lists,
    World,
    WorldEvent,
    entered,
    mean_lost,
    mean_overlap,
    unit_vectors,
)
from model.state.segmented_cache import PROVEN_EVENTS
from model.state.stream_state import TitleMetadata

MIN_ESTABLISHED_EVENTS: Final = 20  # events of a user whose interest in a premiere must count in full
TARGET_EVENTS: Final = (1, 3)  # honest events of the title that an attack promotes
POPULAR_TITLES: Final = 10  # that fake users act on first, in the attack "popular title first"
NEW_TITLES: Final = 30  # honest launches on the day of a launch flood
REAL_LAUNCH: Final = "real launch"  # id of the title of a genuine launch
FLOOD_LAUNCHES: Final = 64
INVENTED_IDS: Final = 200
SPARE_ROWS: Final = 20  # rows of the catalog that are free when the invented ids arrive
ONE_EVENT_USERS: Final = 1_000
SPARE_USERS: Final = 100  # places in the user store that are free when the one-event users arrive
RANKED_SHARE: Final = 0.1  # of the events that the learner ranks before it learns them, as one under load
HUGE_TEXT: Final = 65_536  # characters of a field, the most that a record may have
_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000

MANY_USERS, ONE_USER, POPULAR_FIRST = "many new users", "one user repeatedly", "popular title first"
KINDS: Final = (MANY_USERS, ONE_USER, POPULAR_FIRST)
IDENTICAL_TEXTS, DISTINCT_TEXTS = "near-identical texts", "distinct texts"
LAUNCH_FLOODS: Final = {  # name -> texts, and the time between two launches (ms)
    f"{FLOOD_LAUNCHES} invented launches, {texts}{spread}": (texts, gap_ms)
    for spread, gap_ms in (("", 1), (", one per minute", _MINUTE_MS))
    for texts in (IDENTICAL_TEXTS, DISTINCT_TEXTS)
}
LIKE_REAL_LAUNCHES: Final = f"{FLOOD_LAUNCHES} invented launches, {DISTINCT_TEXTS}, one per minute"


@dataclass(frozen=True)
class Scene:
    """A world before an attack, and its lists without one."""

    world: World
    users: Sequence[str]  # honest users whose lists are compared
    target: str  # the title that fake events promote
    popular: Sequence[str]  # the titles with the most events
    later: Sequence[WorldEvent]  # honest events after the attack
    without: Lists
    without_later: Lists


def new_scene(world: World, later: Sequence[WorldEvent], users: int, random: np.random.Generator) -> Scene:
    """Draw the honest users and a target, and compute the lists without an attack."""
    state = world.learner.stream_state
    events = {title: int(state.user_store.interactions.title_count_V[row]) for title, row in state.catalog.rows.items()}
    candidates = sorted(world.candidates(), key=lambda title: (-events[title], title))
    few = [title for title in candidates if TARGET_EVENTS[0] <= events[title] <= TARGET_EVENTS[1]]
    known = sorted(user for user, history in world.histories.items() if len(history) >= 3)
    asked = [known[i] for i in random.permutation(len(known))[:users].tolist()]
    honest = world.copy()
    honest.learn(later, ranked_share=RANKED_SHARE)
    return Scene(
        world,
        asked,
        few[len(few) // 2],
        candidates[:POPULAR_TITLES],
        later,
        world.lists(asked),
        honest.lists(asked),
    )


def fake_events(scene: Scene, kind: str, count: int) -> dict[str, Any]:
    """`count` fake events for the target, right after the last honest one."""
    start, target = scene.world.now + 1000, scene.target
    if kind == ONE_USER:
        events = [WorldEvent("fake", target, start + i) for i in range(count)]
    elif kind == MANY_USERS:
        events = [WorldEvent(f"fake{i}", target, start + i) for i in range(count)]
    else:
        popular = scene.popular
        pairs = (
            (WorldEvent(f"fake{i}", popular[i % len(popular)], start + i), WorldEvent(f"fake{i}", target, start + i))
            for i in range(count // 2)
        )
        events = list(chain.from_iterable(pairs))
    attacked = scene.world.copy()
    before = attacked.state_bytes()
    attacked.learn(events)
    lists = attacked.lists(scene.users)
    grown = attacked.state_bytes() - before
    attacked.learn(scene.later, ranked_share=RANKED_SHARE)
    recovered = attacked.lists(scene.users)
    size = len(scene.users)
    return {
        "top10": entered(target, lists, scene.without, TOP) / size,
        "lists": entered(target, lists, scene.without, len(lists[scene.users[0]])) / size,
        "top10_later": entered(target, recovered, scene.without_later, TOP) / size,
        "lists_later": entered(target, recovered, scene.without_later, len(recovered[scene.users[0]])) / size,
        "state_kib": grown / 1024,
    }


def invented_ids(scene: Scene) -> dict[str, Any]:
    """Events on titles that never launched, each of enough users to get a row in the catalog."""
    rows = len(scene.world.learner.stream_state.catalog.rows)
    attacked = scene.world.copy(max_titles=rows + SPARE_ROWS)
    launched, before = attacked.candidates(), attacked.state_bytes()
    users = attacked.learner.settings.stream_state.min_users_before_launch
    start = attacked.now + 1000
    events = [
        WorldEvent(f"fake{user}", f"invented{title}", start + title)
        for title in range(INVENTED_IDS)
        for user in range(users)
    ]
    attacked.learn(events, ranked_share=RANKED_SHARE)
    attacked.learn(scene.later[:1])  # the next micro-batch evicts
    grown = attacked.state_bytes() - before
    return {"evicted_launched": len(launched - attacked.candidates()), "state_kib": grown / 1024}


def one_event_users(scene: Scene) -> dict[str, Any]:
    """Many users who come once, for popular titles: which honest users does the learner still know?"""
    honest = scene.world.users_in_store()
    attacked = scene.world.copy(max_users=len(honest) + SPARE_USERS)
    before, start = attacked.state_bytes(), attacked.now + 1000
    popular = scene.popular
    events = [WorldEvent(f"fake{i}", popular[i % len(popular)], start + i) for i in range(ONE_EVENT_USERS)]
    attacked.learn(events, ranked_share=RANKED_SHARE)
    lists = attacked.lists(scene.users)
    proven = {user for user in honest if len(scene.world.histories[user]) >= PROVEN_EVENTS}
    return {
        "evicted_users": len(proven - attacked.users_in_store()),
        "overlap": mean_overlap(scene.without, lists),
        "state_kib": (attacked.state_bytes() - before) / 1024,
    }


def launch_flood(scene: Scene, texts: str, gap_ms: int, random: np.random.Generator) -> dict[str, Any]:
    """Honest launches over a day, then invented ones every `gap_ms`: who is in the lists after the last one?

    `displaced` is the number of titles that a list has in its last places, the new-title slots, before the flood and
    lacks after it.
    """
    attacked, now = scene.world.copy(), scene.world.now
    semantic_VE = _texts_like(attacked, NEW_TITLES + FLOOD_LAUNCHES, random)
    gap = _DAY_MS // NEW_TITLES
    honest = [_title(f"new{i}", semantic_VE[i], now - i * gap) for i in range(NEW_TITLES)]
    attacked.learn([], honest)
    attacked.now += FLOOD_LAUNCHES * gap_ms
    before = attacked.lists(scene.users)
    flood_VE = semantic_VE[NEW_TITLES:]
    if texts == IDENTICAL_TEXTS:
        flood_VE = flood_VE[:1] + 0.02 * unit_vectors(random, FLOOD_LAUNCHES, flood_VE.shape[1])
        flood_VE /= np.linalg.norm(flood_VE, axis=1, keepdims=True)
    size = attacked.state_bytes()
    attacked.learn([], [_title(f"fake{i}", flood_E, now + i * gap_ms) for i, flood_E in enumerate(flood_VE)])
    grown = attacked.state_bytes() - size
    after = attacked.lists(scene.users)
    attacked.learn(scene.later, ranked_share=RANKED_SHARE)
    later = attacked.lists(scene.users)
    return {
        "new_titles": _mean_count(before, "new"),
        "new_titles_after": _mean_count(after, "new"),
        "displaced": mean_lost({user: one[-NEW_TITLE_SLOTS:] for user, one in before.items()}, after),
        "fakes": _mean_count(after, "fake"),
        "fakes_later": _mean_count(later, "fake"),
        "state_kib": grown / 1024,
    }


def huge_texts(scene: Scene, encode: Encoder) -> dict[str, Any]:
    """Launches with the longest texts that a record may have: what does one add to the learner's state?"""
    attacked = scene.world.copy()
    before = attacked.state_bytes()
    texts = encode(["\U0001f3ac" * HUGE_TEXT + str(i) for i in range(POPULAR_TITLES)])
    attacked.learn([], [_title(f"huge{i}", text, attacked.now) for i, text in enumerate(texts)])
    attacked.learn(scene.later[:1])
    return {"state_kib_per_title": (attacked.state_bytes() - before) / 1024 / POPULAR_TITLES}


def real_premiere(world: World, users: Sequence[str], first_events: int, random: np.random.Generator) -> int:
    """A genuine launch: how many lists does a new title reach after its first events, all of established users?

    Where fewer users are established than events are needed, the most active ones come back on the following days.
    """
    copied = world.copy()
    text_E = _texts_like(copied, 1, random)[0]
    copied.learn([], [_title(REAL_LAUNCH, text_E, copied.now)])
    active = sorted(copied.histories, key=lambda user: (-len(copied.histories[user]), user))
    fans = [user for user in active if len(copied.histories[user]) >= MIN_ESTABLISHED_EVENTS]
    start, seconds = copied.now + _MINUTE_MS, 1000
    events = [
        WorldEvent(fans[i % len(fans)], REAL_LAUNCH, start + i * seconds + (i // len(fans)) * (_DAY_MS + _MINUTE_MS))
        for i in range(first_events)
    ]
    copied.learn(events)
    return sum(REAL_LAUNCH in titles for titles in copied.lists(users).values())


def _texts_like(world: World, count: int, random: np.random.Generator) -> np.ndarray:
    """Unit text embeddings between those of two random titles, so that they are distinct and plausible."""
    catalog = world.learner.stream_state.catalog
    known_VE = catalog.semantic_VE[np.flatnonzero(catalog.candidate_V)]
    mixed_VE = (
        known_VE[random.integers(len(known_VE), size=count)] + known_VE[random.integers(len(known_VE), size=count)]
    )
    unit_VE: np.ndarray = mixed_VE / np.linalg.norm(mixed_VE, axis=1, keepdims=True)
    return unit_VE


def _title(name: str, semantic_E: np.ndarray, appended: int) -> TitleMetadata:
    return TitleMetadata(name, semantic_E.astype(np.float32), (), None, None, False, recorded=appended)


def _mean_count(lists: Lists, prefix: str) -> float:
    """The mean number of titles of a list whose id begins so."""
    return float(np.mean([sum(title.startswith(prefix) for title in one) for one in lists.values()]))
