"""What `publish` must do in time, per thread, beside what people write first; `python -m benchmarks.publishing`.

    refresh   viewers a second who get all their lists anew: a backbone pass, three horizons, the top 100 of 10,000
              titles; ours in batches of several sizes, and beside it the plain form: viewer by viewer, every signal of
              every title, the ranker over all of them for each horizon, a full sort; and the backbone alone, without
              signals and ranker, which is what libraries of sequence models do
    parts     where the time of a refresh goes, in microseconds a viewer
    launch    a new title compared with 100,000 cached viewers: encoded, one product, a partial sort; beside a loop
    entering  the lists that it enters: scored, changed and written to a Redis; beside making those lists anew

The world is simulated (`benchmarks.world`). One thread is timed by the time it worked where nothing else is waited for.
"""

import argparse
import cProfile
import heapq
import pstats
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.runner import Row, compare, in_turn, publish, row
from benchmarks.world import TITLES, USERS, World, teach
from infra.local.embedded import start_redis
from model.recommender import RankedEvent, Recommender, TitleEncoder, Viewer
from streaming.records import Activity, NewEvent, Title
from streaming.state.publisher import Publisher, PublishSettings
from streaming.state.user_cache import UserCache
from streaming.stores.redis_lists import Item, Placed, RedisSink

SIZE, KEPT, CACHED, ASKED = 100, 5, 100_000, 256
BATCHES = (128, 32, 16)  # viewers at once
PARTS = {  # methods by what they do, with all that they call
    "backbone": ("sequence.py", "now"),
    "text of all titles": ("lists.py", "text_scores"),
    "counters and audience": ("recommender.py", "_gather"),
    "shortlist": ("signals.py", "shortlist"),
    "signals of candidates": ("lists.py", "read"),
    "ranker": ("scorer.py", "__call__"),
    "lists": ("recommender.py", "_best"),
}
WHOLE = ("recommender.py", "recommend")
Step = Callable[[], object]


def plain(version: Recommender, viewers: Sequence[Viewer], now: int) -> list[list[list[str]]]:
    """What people write first: nothing is shortlisted, nothing shared between viewers or horizons."""
    ids, found = version.stream_state.catalog.ids, []
    nothing = RankedEvent({}, {}, np.zeros(0, np.float32), np.zeros(len(version.horizons), np.float32), now)
    for viewer in viewers:
        lists_HS = []
        (score_HV,) = version.score([ids], [viewer], [nothing])
        for score_V in torch.from_numpy(score_HV):
            score_V[version.stream_state.catalog.find(viewer.seen or ())] = -torch.inf
            lists_HS.append([ids[row] for row in score_V.sort(descending=True).indices[:SIZE].tolist()])
        found.append(lists_HS)
    return found


def alone(version: Recommender, viewers: Sequence[Viewer], now: int) -> list[list[NDArray[np.int64]]]:
    """The backbone's own best of all titles: a pass, a product and a top SIZE for each horizon."""
    histories = [version._history(viewer) for viewer in viewers]
    hidden_BD = version.sequence.now(histories, [now] * len(viewers))
    seen = [version.stream_state.catalog.find(viewer.seen or ()) for viewer in viewers]
    found = []
    for place in range(len(version.horizons)):
        score_BV = version.sequence.scores(hidden_BD, place)
        for rows, score_V in zip(seen, score_BV, strict=True):
            score_V[rows] = -np.inf
        best = np.argpartition(-score_BV, SIZE, axis=1)[:, :SIZE]
        found.append([b[np.argsort(-s[b])] for b, s in zip(best, score_BV, strict=True)])
    return found


def refresh(version: Recommender, world: World, rounds: int) -> list[Row]:
    viewers = [world.viewer(user) for user in range(max(BATCHES))]

    def ours(batch: int) -> Step:
        parts = [viewers[start : start + batch] for start in range(0, len(viewers), batch)]
        return lambda: [version.recommend(part, world.now, SIZE, KEPT) for part in parts]

    case, most = f"refresh, top {SIZE} of {TITLES:,}", len(viewers)
    seconds = in_turn({f"ours, {batch} at once": ours(batch) for batch in BATCHES}, rounds, clock=time.process_time)
    by_backbone = in_turn({"-": lambda: alone(version, viewers, world.now)}, rounds, clock=time.process_time)["-"]
    seconds["the backbone alone, 128 at once"] = by_backbone
    few = viewers[:8]  # the plain form takes seconds
    beside = in_turn({"plain": lambda: plain(version, few, world.now)}, 3, clock=time.process_time)["plain"]
    scaled = [s * most / len(few) for s in beside]
    seconds["every title by the ranker, sorted"] = (scaled * rounds)[:rounds]
    return compare(case, seconds, f"ours, {BATCHES[0]} at once", "viewers/CPU s", most)


def parts(version: Recommender, world: World, passes: int = 5) -> list[Row]:
    """What each part takes, by a profile, which itself costs a little; of the pass that was disturbed least."""
    viewers = [world.viewer(user) for user in range(BATCHES[0])]
    profiles = []
    for _ in range(passes):
        profile = cProfile.Profile()
        profile.runcall(version.recommend, viewers, world.now, SIZE, KEPT)
        calls = pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]
        profiles.append({(Path(file).name, name): one[3] for (file, _, name), one in calls})
    found = min(profiles, key=lambda found: found[WHOLE])
    took = {name: found[key] for name, key in PARTS.items()}
    took |= {"all else": found[WHOLE] - sum(took.values()), "all": found[WHOLE]}
    us = 1e6 / len(viewers)
    return [row("refresh, parts", name, [us * s], "us/viewer", s / found[WHOLE]) for name, s in took.items()]


def cache(version: Recommender, world: World) -> Publisher:
    """A publisher that serves 100,000 viewers: each has the history and lists of one in the world, and a query vector
    near that one's."""
    publisher = Publisher(PublishSettings(SIZE, KEPT, users=CACHED, asked=ASKED, budget=1e9))
    publisher.serve(0, version, [])
    viewers = [world.viewer(user) for user in range(USERS)]
    made = [
        one for at in range(0, USERS, 100) for one in version.recommend(viewers[at : at + 100], world.now, SIZE, KEPT)
    ]
    for n in range(CACHED):
        one, ranked = viewers[n % USERS], made[n % USERS]
        user, last = f"c{n}", len(one.titles) - 1
        publisher.remember(
            Activity(
                user=user,
                count=one.events,
                titles=list(one.titles),
                times=list(one.times),
                actions=list(one.actions),
                new=[NewEvent(last, 0, n, world.now)],
            )
        )
        known = publisher.viewers.get(user)
        assert known is not None
        noise_P = world.random.normal(size=len(ranked.query)).astype(np.float32)
        publisher.viewers.keep(known, replace(ranked, query=ranked.query + noise_P), 0)
    publisher.refreshing.clear()
    return publisher


def launch(publisher: Publisher, encoder: TitleEncoder, world: World, rounds: int) -> list[Row]:
    text_S = world.texts(np.zeros(1, np.int64))[0]
    viewers = publisher.viewers
    assert loop(viewers, encoder, text_S) == viewers.nearest({0: encoder(text_S)}, ASKED)
    variants: dict[str, Step] = {
        "ours": lambda: viewers.nearest({0: encoder(text_S)}, ASKED),
        "viewer by viewer": lambda: loop(viewers, encoder, text_S),
    }
    return compare(f"launch, {CACHED:,} viewers", in_turn(variants, rounds), "ours")


def loop(viewers: UserCache, encoder: TitleEncoder, text_S: NDArray[np.float32]) -> list[str]:
    """What people write first: a score for each viewer, the best of them."""
    e_P = encoder(text_S)
    score = {user: float(viewers.query_UP[user_index] @ e_P) for user, user_index in viewers.user_indices.items()}
    return heapq.nlargest(ASKED, score, key=lambda user: score[user])


def entering(publisher: Publisher, world: World, rounds: int) -> list[Row]:
    """From a launch to the last list that it enters, written; beside all of those lists made anew and written."""
    version = publisher.recommender
    assert version is not None
    took: dict[str, list[float]] = {"ours": [], "those lists made anew": []}
    entered: list[float] = []
    with tempfile.TemporaryDirectory() as folder, start_redis(Path(folder)) as url:
        part = RedisSink(url).build_part("", "0", None)
        for n in range(rounds + 1):
            title = _title(world, f"new-{n}", n)
            begin = time.perf_counter()
            publisher.launch([title])
            tried = [user for user in publisher.entering if user is not None]
            placed = 0
            while publisher.entering:
                items: list[Item] = publisher.work(world.now)
                part.write_batch([items])
                placed += sum(item.entered for item in items if isinstance(item, Placed))
            took["ours"].append(time.perf_counter() - begin)
            entered.append(placed)
            begin = time.perf_counter()
            publisher.acted.update({user: (n, []) for user in tried})
            while publisher.acted:
                part.write_batch([publisher.work(world.now)])
            took["those lists made anew"].append(time.perf_counter() - begin)
        part.close()
    case = f"entering, {ASKED} viewers tried"
    some = {name: seconds[1:] for name, seconds in took.items()}  # the first warms up
    return [*compare(case, some, "ours"), row(case, "lists entered", entered[1:], "viewers")]


def _title(world: World, name: str, n: int) -> Title:
    """A launch of the world's first topic."""
    text = world.texts(np.zeros(1, np.int64))[0].astype("<f4").tobytes()
    told = {"name": name, "genres": ["g0", "h0"], "year": 2020, "released": None, "withdrawn": False, "semantic": text}
    return Title(title=name, launched=world.now, stamp=n + 1, appended=world.now, offset=n, **told)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="3 rounds instead of 9")
    rounds = 3 if options.parse_args().quick else 9
    torch.manual_seed(0)
    torch.set_num_threads(1)
    world = World()
    version = teach(world)
    rows = refresh(version, world, rounds) + parts(version, world)
    publisher = cache(version, world)
    rows += launch(publisher, version.encoder(), world, rounds) + entering(publisher, world, rounds)
    publish("publishing", rows)
