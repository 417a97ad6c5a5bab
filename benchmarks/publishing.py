"""Measures the computations of `publish` on one thread, against simple implementations.

    refresh   users per second whose lists are all recomputed: a backbone pass, three horizons, the top 100 of 10,000
              titles, in batches of several sizes. Beside it the naive form: user by user, all signals of all titles,
              the ranker over all titles for each horizon, and a full sort. And the backbone alone, without signals and
              ranker, as in sequence model libraries
    parts     the time of each part of a refresh, in microseconds per user
    launch    a new title compared with 100,000 cached users: encoding, one matrix product, a partial sort; beside it a
              loop over the users
    writes    the lists that a new title enters: scored, changed and written to Redis; beside it, recomputing all lists
              that were tried

The data is simulated (`benchmarks.simulated_world`). Work that waits for nothing is measured in CPU time.

    python -m benchmarks.publishing
"""

import argparse
import cProfile
import heapq
import pstats
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.runner import Row, Work, compare_times, make_row, save_results, time_variants
from benchmarks.simulated_world import TITLES, USERS, SimulatedWorld, train_recommender
from infra.local.embedded import start_redis
from model.recommender import RankedLists, Recommender, TitleEncoder, UserContext
from model.sequence.model import SequenceModel
from model.signals import candidates
from model.signals.query_scores import BatchScores
from model.signals.scorer import Scorer
from streaming.records import Activity, NewEvent, Title
from streaming.state.publish_settings import PublishSettings
from streaming.state.publisher import Publisher
from streaming.state.user_cache import UserCache
from streaming.stores.redis_lists import LaunchCompleted, RedisSink, RedisWrite

LIST_SIZE: Final = 100
NEW_TITLE_SLOTS: Final = 5
CACHED_USERS: Final = 100_000
LAUNCH_FANOUT: Final = 256
BATCH_SIZES: Final = (128, 32, 16)  # users per call
NAIVE_USERS: Final = 8  # the naive form takes seconds for each
NAIVE_ROUNDS: Final = 3
FILL_BATCH: Final = 100  # users per call while the cache is filled
PARTS: Final[Mapping[str, Callable[..., Any]]] = {  # a part's time includes the functions that it calls
    "backbone": SequenceModel.hidden_now,
    "text and backbone scores": BatchScores.__getitem__,
    "user signals": Recommender._gather,
    "linear scores": candidates._add_and_score,
    "candidate signals": candidates.build_signals,
    "ranker": Scorer.__call__,
    "list selection": Recommender._select,
}


def rank_all_titles(version: Recommender, users: Sequence[UserContext], now: int) -> list[list[list[str]]]:
    """The naive form: no shortlist, and nothing shared between users or horizons. Lists by user and horizon."""
    ids, found = version.stream_state.catalog.ids, []
    no_lists = RankedLists({}, {}, np.zeros(0, np.float32), np.zeros(len(version.horizons), np.float32), now)
    for user in users:
        lists = []
        (score_HV,) = version.score([ids], [user], [no_lists])
        for score_V in torch.from_numpy(score_HV):
            score_V[version.stream_state.catalog.rows_of(user.seen or ())] = -torch.inf
            lists.append([ids[row] for row in score_V.sort(descending=True).indices[:LIST_SIZE].tolist()])
        found.append(lists)
    return found


def rank_by_backbone(version: Recommender, users: Sequence[UserContext], now: int) -> list[list[NDArray[np.int64]]]:
    """The backbone's own top titles: a pass, then a product and a top LIST_SIZE for each horizon. Rows by horizon and
    user."""
    histories = [version._history(user) for user in users]
    hidden_BD = version.sequence.hidden_now(histories, [now] * len(users))
    seen = [version.stream_state.catalog.rows_of(user.seen or ()) for user in users]
    found = []
    for horizon in range(len(version.horizons)):
        score_BV = version.sequence.scores(hidden_BD, horizon)
        for rows, score_V in zip(seen, score_BV, strict=True):
            score_V[rows] = -np.inf
        best = np.argpartition(-score_BV, LIST_SIZE, axis=1)[:, :LIST_SIZE]
        found.append([b[np.argsort(-s[b])] for b, s in zip(best, score_BV, strict=True)])
    return found


def measure_refresh(version: Recommender, world: SimulatedWorld, rounds: int) -> list[Row]:
    """Users per CPU second of a refresh."""
    users = [world.user_context(user) for user in range(max(BATCH_SIZES))]

    def in_batches(size: int) -> Work:
        batches = [users[start : start + size] for start in range(0, len(users), size)]
        return lambda: [version.recommend(batch, world.now, LIST_SIZE, NEW_TITLE_SLOTS) for batch in batches]

    ours = {f"ours, batches of {size}": in_batches(size) for size in BATCH_SIZES}
    seconds = time_variants(ours, rounds, clock=time.process_time)
    backbone: dict[str, Work] = {
        f"backbone alone, batches of {len(users)}": lambda: rank_by_backbone(version, users, world.now)
    }
    seconds |= time_variants(backbone, rounds, clock=time.process_time)
    naive: dict[str, Work] = {
        "naive: rank and sort all titles": lambda: rank_all_titles(version, users[:NAIVE_USERS], world.now)
    }
    for name, measured in time_variants(naive, NAIVE_ROUNDS, clock=time.process_time).items():
        scaled = [s * len(users) / NAIVE_USERS for s in measured]
        seconds[name] = (scaled * rounds)[:rounds]
    case = f"refresh, top {LIST_SIZE} of {TITLES:,}"
    return compare_times(case, seconds, f"ours, batches of {BATCH_SIZES[0]}", "users/CPU s", len(users))


def measure_parts(version: Recommender, world: SimulatedWorld, passes: int = 5) -> list[Row]:
    """Time of each part of a refresh from the fastest of several profiled passes; profiling costs a little itself."""
    users = [world.user_context(user) for user in range(min(BATCH_SIZES[0], len(world.histories)))]
    profiles = [
        profile_seconds(lambda: version.recommend(users, world.now, LIST_SIZE, NEW_TITLE_SLOTS)) for _ in range(passes)
    ]
    total_of = _profile_key(Recommender.recommend)
    fastest = min(profiles, key=lambda profile: profile[total_of])
    seconds = {name: fastest[_profile_key(function)] for name, function in PARTS.items()}
    seconds |= {"other": fastest[total_of] - sum(seconds.values()), "total": fastest[total_of]}
    us_per_user = 1e6 / len(users)
    return [
        make_row("refresh, parts", name, [us_per_user * s], "us/user", s / fastest[total_of])
        for name, s in seconds.items()
    ]


def profile_seconds(work: Work) -> dict[tuple[str, int, str], float]:
    """Cumulative seconds of each Python function in one call, by file, first line and name."""
    profile = cProfile.Profile()
    profile.runcall(work)
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    return {function: values[3] for function, values in stats.items()}


def _profile_key(function: Callable[..., Any]) -> tuple[str, int, str]:
    code = getattr(function, "__wrapped__", function).__code__  # the function inside a decorator such as no_grad
    return code.co_filename, code.co_firstlineno, code.co_name


def filled_publisher(version: Recommender, world: SimulatedWorld, size: int = CACHED_USERS) -> Publisher:
    """A publisher with `size` cached users. Each has the history and lists of a simulated user, and a query vector near
    that user's."""
    settings = PublishSettings(
        LIST_SIZE, NEW_TITLE_SLOTS, max_users=size, launch_fanout=LAUNCH_FANOUT, refresh_budget=1e9
    )
    publisher = Publisher(settings)
    publisher.serve(0, version, [], position=size)  # of all cached events
    contexts = [world.user_context(user) for user in range(len(world.histories))]
    ranked = [
        lists
        for start in range(0, len(contexts), FILL_BATCH)
        for lists in version.recommend(contexts[start : start + FILL_BATCH], world.now, LIST_SIZE, NEW_TITLE_SLOTS)
    ]
    for n in range(size):
        context, lists = contexts[n % len(contexts)], ranked[n % len(contexts)]
        user = f"c{n}"
        publisher.update_cache(
            Activity(
                user=user,
                count=context.events,
                titles=list(context.titles),
                times=list(context.times),
                actions=list(context.actions),
                new=[NewEvent(len(context.titles) - 1, 0, n, world.now)],
            ),
            n,
        )
        cached = publisher.users.get(user)
        assert cached is not None
        noise_P = world.random.normal(size=len(lists.query)).astype(np.float32)
        publisher.users.store_lists(cached, replace(lists, query=lists.query + noise_P), 0)
    publisher.refresh_queue.clear()
    return publisher


def measure_launch(publisher: Publisher, encoder: TitleEncoder, world: SimulatedWorld, rounds: int) -> list[Row]:
    """Time to find the users whose query vectors fit a new title best."""
    text_E = world.text_embeddings(np.zeros(1, np.int64))[0]
    users = publisher.users
    fanout = publisher.settings.launch_fanout
    assert nearest_users(users, encoder(text_E), fanout) == users.nearest({0: encoder(text_E)}, fanout)
    variants: dict[str, Work] = {
        "ours": lambda: users.nearest({0: encoder(text_E)}, fanout),
        "user by user": lambda: nearest_users(users, encoder(text_E), fanout),
    }
    return compare_times(f"launch, {len(users):,} users", time_variants(variants, rounds), "ours")


def nearest_users(users: UserCache, title_P: NDArray[np.float32], limit: int) -> list[str]:
    """The simple form of `UserCache.nearest`: a score for each user, then the best."""
    score = {user: float(users.query_UP[user_index] @ title_P) for user, user_index in users.user_indices.items()}
    return heapq.nlargest(limit, score, key=lambda user: score[user])


def measure_launch_writes(publisher: Publisher, world: SimulatedWorld, rounds: int) -> list[Row]:
    """Time from a launch until the last list that it enters is written; beside it, recomputing and writing the lists of
    all users that it was tried on."""
    seconds: dict[str, list[float]] = {"ours": [], "recompute the lists": []}
    entered: list[float] = []
    with tempfile.TemporaryDirectory() as folder, start_redis(Path(folder)) as url:
        sink = RedisSink(url).build_part("", "0", None)
        for n in range(rounds + 1):
            title = new_title(world, f"new-{n}", n)
            began = time.perf_counter()
            publisher.on_launches([title])
            tried = [user for user in publisher.launch_queue if user is not None]
            lists_entered = 0
            while publisher.launch_queue:
                writes: list[RedisWrite] = publisher.work(world.now)
                sink.write_batch([writes])
                lists_entered += sum(write.entered for write in writes if isinstance(write, LaunchCompleted))
            seconds["ours"].append(time.perf_counter() - began)
            entered.append(lists_entered)
            began = time.perf_counter()
            publisher.event_queue.update({user: (n, []) for user in tried})
            while publisher.event_queue:
                sink.write_batch([publisher.work(world.now)])
            seconds["recompute the lists"].append(time.perf_counter() - began)
        sink.close()
    case = f"launch writes, {LAUNCH_FANOUT} users tried"
    after_warmup = {name: values[1:] for name, values in seconds.items()}
    return [*compare_times(case, after_warmup, "ours"), make_row(case, "lists entered", entered[1:], "users")]


def new_title(world: SimulatedWorld, title: str, n: int) -> Title:
    """The n-th launched title; it has the first topic."""
    text = world.text_embeddings(np.zeros(1, np.int64))[0].astype("<f4").tobytes()
    return Title(
        title=title,
        name=title,
        genres=["g0", "h0"],
        year=2020,
        released=None,
        launched=world.now,
        stamp=n + 1,
        withdrawn=False,
        semantic=text,
        appended=world.now,
        offset=n,
    )


def main() -> None:
    """Measure and save the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 9")
    rounds = 3 if parser.parse_args().quick else 9
    torch.manual_seed(0)
    torch.set_num_threads(1)
    world = SimulatedWorld(TITLES, USERS)
    version = train_recommender(world)
    rows = measure_refresh(version, world, rounds) + measure_parts(version, world)
    publisher = filled_publisher(version, world)
    rows += measure_launch(publisher, version.title_encoder(), world, rounds)
    rows += measure_launch_writes(publisher, world, rounds)
    save_results("publishing", rows)


if __name__ == "__main__":
    main()
