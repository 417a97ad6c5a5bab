"""Simulated users and titles, for when no real dataset is available. Their structure is known and can be learned.

Users have genre preferences that drift over time; within a session they stay with one genre. Titles launch throughout,
get most events when new, differ in appeal, and some are sequels that users of the first part choose. Names, genres and
overviews are made of genre words, so the text tells the genre before a title has any event. The seed determines
everything.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from infra.data.datasets import Dataset, from_tables
from infra.data.tables import Table

_START_S: Final = 1_735_689_600  # 2025-01-01
_DAY_S: Final = 86_400
_LAUNCHED_AT_START: Final = 0.4  # share of the titles
_SEQUEL_SHARE: Final = 0.15  # of the titles
_NOVELTY_DECAY_DAYS: Final = 10.0  # time constant of the launch boost
_SESSION_EVENTS: Final = 4.0  # mean per session
_WORDS: Final = {
    "Heist": "vault thief safe diamond getaway crew alarm robbery bank loot",
    "Space": "starship orbit galaxy astronaut planet comet colony lunar rocket asteroid",
    "Romance": "wedding love kiss letter heart proposal summer dance bride longing",
    "Horror": "haunted ghost cellar scream curse blood grave shadow nightmare possessed",
    "Western": "sheriff saloon ranch cattle outlaw desert rifle frontier gold horse",
    "Courtroom": "lawyer jury verdict judge witness trial appeal innocent testimony prosecutor",
    "Cooking": "chef kitchen recipe restaurant oven bakery spice dessert tasting harvest",
    "Sports": "coach league stadium champion team training final match defeat victory",
    "Nature": "ocean whale forest migration coral predator glacier river jungle volcano",
    "Music": "band concert guitar singer stage melody tour drummer orchestra record",
    "War": "soldier trench battle general invasion bunker platoon siege front ceasefire",
    "Spy": "agent embassy codename traitor microfilm double handler cipher border defector",
}
_FILLER: Final = "a story of people who meet at the edge of town and must choose before the night ends"


@dataclass(frozen=True)
class _Catalog:
    """V titles over G genres."""

    genre: NDArray[np.float64]  # [V, G], rows sum to 1
    appeal: NDArray[np.float64]
    launched: NDArray[np.float64]  # days
    sequel_of: NDArray[np.int64]  # -1: an original


def simulate(users: int = 600, titles: int = 2000, events: int = 40_000, days: float = 180, seed: int = 0) -> Dataset:
    """A dataset of about these numbers of users, titles and events over `days`."""
    random = np.random.default_rng(seed)
    catalog = _simulate_catalog(random, titles, days)
    rows = sorted(_simulate_events(random, catalog, users, events, days))
    table = pd.DataFrame(rows[:events], columns=["ts", "user", "item", "action"])
    table["ts"] = _START_S + (table["ts"] * _DAY_S).astype(np.int64)
    described = _title_texts(random, catalog)
    return from_tables(
        Table("simulated events", table), Table("simulated titles", described), name="simulated", simulated=True
    )


def _simulate_catalog(random: np.random.Generator, titles: int, days: float) -> _Catalog:
    genre_VG = random.dirichlet(np.full(len(_WORDS), 0.08), titles)
    launched_V = np.where(random.random(titles) < _LAUNCHED_AT_START, 0.0, random.random(titles) * days)
    launched_V.sort()
    sequel_of_V = np.full(titles, -1)
    for title in np.flatnonzero(
        (random.random(titles) < _SEQUEL_SHARE) & (np.arange(titles) > titles * _LAUNCHED_AT_START)
    ):
        sequel_of_V[title] = original = random.integers(title // 2)
        genre_VG[title] = genre_VG[original]
    return _Catalog(genre_VG, random.lognormal(0, 0.8, titles), launched_V, sequel_of_V)


def _simulate_events(
    random: np.random.Generator, catalog: _Catalog, users: int, events: int, days: float
) -> list[tuple[float, str, str, str]]:
    """Events of all users as (day, user, item, action)."""
    share_U = np.minimum(random.pareto(2.5, users) + 0.3, 2.0)
    rows: list[tuple[float, str, str, str]] = []
    for user, share in enumerate(share_U / share_U.sum()):
        joined = random.random() * days * 0.8
        sessions = max(1, round(1.1 * events * share / _SESSION_EVENTS))
        start_S = np.sort(joined + random.random(sessions) * (days - joined))
        rows += _simulate_user(random, catalog, f"user-{user}", start_S)
    return rows


def _simulate_user(
    random: np.random.Generator, catalog: _Catalog, user: str, start_S: NDArray[np.float64]
) -> list[tuple[float, str, str, str]]:
    """Events of one user: a preference that drifts into another, one genre per session, each title once."""
    first_G, last_G = random.dirichlet(np.full(len(_WORDS), 0.25), 2)
    unseen_V = np.ones(len(catalog.appeal))
    follow_V = np.zeros(len(unseen_V))  # boost of sequels whose first part this user has watched
    rows = []
    for session, day in enumerate(start_S):
        part = session / len(start_S)
        genre = random.choice(len(_WORDS), p=(1 - part) * first_G + part * last_G)
        for step in range(1 + random.poisson(_SESSION_EVENTS - 1)):
            title = _choose_title(random, catalog, genre, day, unseen_V * (1 + follow_V))
            if title is None:
                break
            unseen_V[title] = 0
            follow_V[catalog.sequel_of == title] = 30.0
            liked = random.random() < catalog.genre[title, genre]
            rows.append((day + step * 0.02, user, f"title-{title}", "like" if liked else "play"))
    return rows


def _choose_title(
    random: np.random.Generator, catalog: _Catalog, genre: int, day: float, open_V: NDArray[np.float64]
) -> int | None:
    """A launched title, mostly of the given genre, more likely when new and appealing."""
    age_V = day - catalog.launched
    fresh_V = np.where(age_V > 0, 1 + 8 * np.exp(-age_V / _NOVELTY_DECAY_DAYS), 0.0)
    weight_V = open_V * fresh_V * catalog.appeal * (0.01 + catalog.genre[:, genre] ** 2)
    total_V = np.cumsum(weight_V)
    return int(np.searchsorted(total_V, random.random() * total_V[-1], "right")) if total_V[-1] > 0 else None


def _title_texts(random: np.random.Generator, catalog: _Catalog) -> pd.DataFrame:
    """Names and overviews made of genre words; a sequel has the name of its first part."""
    genres, words, filler = list(_WORDS), [text.split() for text in _WORDS.values()], _FILLER.split()
    names: list[str] = []
    rows = []
    for title, genre_G in enumerate(catalog.genre):
        picked = [words[g][random.integers(10)] for g in random.choice(len(words), 12, p=genre_G)]
        original = catalog.sequel_of[title]
        names.append(f"{names[original]} II" if original >= 0 else f"The {picked[0]} and the {picked[1]}".title())
        overview = " ".join(random.permutation([*picked, *filler[: random.integers(4, len(filler))]]))
        listed = [genres[g] for g in np.argsort(-genre_G) if genre_G[g] > 0.2][:3]
        rows.append((f"title-{title}", names[-1], listed, overview, _START_S + catalog.launched[title] * _DAY_S))
    return pd.DataFrame(rows, columns=["item", "title", "genres", "overview", "launched_ts"])
