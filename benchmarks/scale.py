"""Measures how the cost of serving and learning grows with the catalog, beside a dense reference in the same run.

    refresh        one user's lists, of 32 users at once
    learn          one event in a micro-batch of 64
    learn quiet    a micro-batch of 4
    launch         one title into a version that serves
    learn memory   peak resident memory of a learner that writes a checkpoint, and learns a micro-batch meanwhile
    publish memory  peak resident memory of a process that serves a version and loads the next

Times are CPU times of one thread, the least of some rounds. The reference (`benchmarks.dense`) computes sums and scores
of all titles for each query and reads the whole catalog anew for each micro-batch and launch. Each catalog, and each
peak of memory, is measured in a process of its own.

    python -m benchmarks.scale --titles 10000,100000,1000000 --report scale.json
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.dense.learning import DenseLearner
from benchmarks.dense.ranking import DenseRanking
from benchmarks.runner import Work, environment, peak_resident_mib, reset_peak_resident
from benchmarks.scale_world import ScaleWorld
from infra.output_files import check_writable, output_errors
from model import checkpoint
from model.pipeline import new_pipeline
from model.recommender import Recommender
from model.settings import LearnerSettings
from model.state.stream_state import StreamState
from streaming.state.checkpoints import CheckpointStore
from streaming.state.log_learner import LogLearner
from streaming.state.log_settings import LogSettings
from streaming.state.settings_history import all_values

DEFAULT_TITLES: Final = (10_000, 100_000, 1_000_000)
DEFAULT_USERS: Final = 4_000
DEFAULT_ROUNDS: Final = 5
ROUNDS_BUDGET_S: Final = 30.0  # after which no further round of one measure begins
REFRESH_USERS: Final = 32
LIST_SIZE, NEW_TITLE_SLOTS = 100, 5
BATCH_EVENTS, QUIET_EVENTS = 64, 4  # of a full micro-batch, and of one that its linger closes
MAX_DENSE_TITLES: Final = 200_000  # above, the reference refreshes lists only: the rest would take minutes a round
MEASURES: Final = {
    "refresh_ms": "refresh, ms per user",
    "learn_ms": "learn, ms per event",
    "learn_quiet_ms": "learn quiet, ms per micro-batch",
    "launch_ms": "launch, ms per title",
    "learn_resident_mib": "learn memory, MiB",
    "publish_resident_mib": "publish memory, MiB",
}

Costs = dict[str, float]  # by measure


def least_cpu_ms(work: Work, rounds: int, work_per_call: int = 1) -> float:
    """Least CPU time of some calls, per unit of work; fewer calls if they take long."""
    began, least = time.monotonic(), float("inf")
    for done in range(rounds):
        if done and time.monotonic() - began > ROUNDS_BUDGET_S:
            break
        start = time.process_time()
        work()
        least = min(least, time.process_time() - start)
    return 1000 * least / work_per_call


def measure_times(titles: int, users: int, rounds: int) -> tuple[Costs, Costs]:
    """The times of the product and of the reference, on one learner."""
    torch.set_num_threads(1)
    world = ScaleWorld(titles, users)
    product, dense = _serve_times(world, rounds)
    product |= _learn_times(world, world.learner.observe, rounds)
    dense |= _learn_times(world, DenseLearner(world.learner).observe, rounds) if titles <= MAX_DENSE_TITLES else {}
    return product, dense


def _serve_times(world: ScaleWorld, rounds: int) -> tuple[Costs, Costs]:
    """The times of a version that serves."""
    contexts = [world.user_context(user) for user in range(REFRESH_USERS)]
    version = Recommender(world.state, world.learner.served_pipeline)

    def recommend(ranking: Recommender | DenseRanking) -> Costs:
        work = partial(ranking.recommend, contexts, world.now, LIST_SIZE, NEW_TITLE_SLOTS)
        work()  # the first call compiles
        return {"refresh_ms": least_cpu_ms(work, rounds, len(contexts))}

    product, launches = recommend(version), iter(range(world.titles))
    product["launch_ms"] = least_cpu_ms(lambda: version.update_titles([world.launch(next(launches))]), rounds)
    ranking = DenseRanking(world.state, version.pipeline)
    dense = recommend(ranking)
    if world.titles <= MAX_DENSE_TITLES:
        dense["launch_ms"] = least_cpu_ms(lambda: ranking.launch(world.launch(next(launches))), rounds)
    return product, dense


def _learn_times(world: ScaleWorld, observe: Callable[[Any], object], rounds: int) -> Costs:
    """The times of full and of quiet micro-batches; each event is of another user than the one before."""
    first_user = 0

    def learn(events: int) -> None:
        nonlocal first_user
        first_user += events
        observe(world.micro_batch(events, first_user))

    learn(QUIET_EVENTS)  # the first call compiles
    quiet_ms = least_cpu_ms(lambda: learn(QUIET_EVENTS), rounds)
    return {"learn_ms": least_cpu_ms(lambda: learn(BATCH_EVENTS), rounds, BATCH_EVENTS), "learn_quiet_ms": quiet_ms}


def measure_learn_memory(titles: int, users: int, folder: str, is_dense: bool) -> float:
    """Peak MiB of a learner that writes its state to a checkpoint in the folder, and learns meanwhile."""
    torch.set_num_threads(1)
    world = ScaleWorld(titles, users)
    observe = DenseLearner(world.learner).observe if is_dense else world.learner.observe
    observe(world.micro_batch(QUIET_EVENTS, 0))
    log = LogLearner(world.learner, LogSettings())
    for title in world.state.catalog.ids:
        log.evaluation.set_candidate(title, True)
    settings = all_values(world.learner.settings, log.settings)
    manifest: dict[str, Any] = {"step": 1, "position": 1, "learned": 1, "mrr": None, "settings": settings}
    checkpoints = CheckpointStore(folder, 1, "benchmark")
    reset_peak_resident()
    checkpoints.write(log.state_dict(), manifest)
    observe(world.micro_batch(QUIET_EVENTS, QUIET_EVENTS))
    assert checkpoints.take_finished(wait=True) is not None
    return peak_resident_mib()


def measure_publish_memory(folder: str, is_dense: bool) -> float:
    """Peak MiB of a process that serves the folder's checkpoint and loads it again as the next version."""
    torch.set_num_threads(1)
    (url,) = checkpoint.list_checkpoints(folder)
    load = load_dense if is_dense else Recommender.load
    versions: list[Recommender | DenseRanking] = [load(url)]
    reset_peak_resident()
    versions.append(load(url))
    return peak_resident_mib()


def load_dense(url: str) -> DenseRanking:
    """The reference over the state of a checkpoint, as `Recommender.load`."""
    state, _ = checkpoint.load(url, ("stream_state", "served"))
    stream_state, pipeline = StreamState(LearnerSettings().stream_state), new_pipeline(LearnerSettings())
    stream_state.load_state_dict(state["stream_state"])
    pipeline.load_served(state["served"]["full"])
    return DenseRanking(stream_state, pipeline)


def measure(titles: int, users: int, rounds: int) -> tuple[Costs, Costs]:
    """All measures of the product and of the reference."""
    product, dense = _in_new_process(measure_times, titles, users, rounds)
    for costs, is_dense in ((product, False), (dense, True)):
        if is_dense and titles > MAX_DENSE_TITLES:
            continue
        with tempfile.TemporaryDirectory() as folder:
            costs["learn_resident_mib"] = _in_new_process(measure_learn_memory, titles, users, folder, is_dense)
            costs["publish_resident_mib"] = _in_new_process(measure_publish_memory, folder, is_dense)
        costs["resident_mib"] = max(costs["learn_resident_mib"], costs["publish_resident_mib"])
    return product, dense


def _in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function that runs in a new process: its memory starts empty."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def header(first: int) -> str:
    """The head of the table; `first` is the catalog to whose reference the last column compares."""
    return f"{'titles':>10}  {'measure':<32} {'product':>10} {'dense':>10} {'ratio':>8}  to dense at {first:,}"


def lines(titles: int, product: Costs, dense: Costs, base: Costs) -> list[str]:
    """The table's lines of one catalog. `base` are the reference's costs at the first one."""
    made = []
    for name, label in MEASURES.items():
        reference = (
            f"{dense[name]:10.2f} {product[name] / dense[name]:8.2f}" if name in dense else f"{'-':>10} {'-':>8}"
        )
        to_base = f"{product[name] / base[name]:8.2f}" if name in base else f"{'-':>8}"
        made.append(f"{titles:>10,}  {label:<32} {product[name]:10.2f} {reference} {to_base}")
    return made


def report(results: Mapping[int, tuple[Costs, Costs]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The report: by catalog the costs of the product, and below `dense` those of the reference."""
    titles = {str(titles): {**product, "dense": dense} for titles, (product, dense) in results.items()}
    return {**environment(), **options, "titles": titles}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", default=",".join(map(str, DEFAULT_TITLES)), help="sizes of the catalog")
    parser.add_argument("--users", type=int, default=DEFAULT_USERS, help="users in the state")
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS, help="calls of which the least time counts")
    parser.add_argument("--report", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    check_writable(options.report)
    catalogs, results = [int(titles) for titles in options.titles.split(",")], {}
    print(header(catalogs[0]), flush=True)
    for titles in catalogs:
        product, dense = results[titles] = measure(titles, options.users, options.rounds)
        print("\n".join(lines(titles, product, dense, results[catalogs[0]][1])), flush=True)
    if options.report:
        made = report(results, {"users": options.users, "rounds": options.rounds})
        with output_errors(options.report):
            options.report.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
