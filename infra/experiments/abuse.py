"""`make abuse`: attack a simulated service as a hostile producer would, and check the goals.

Each seed simulates 300 users, 400 titles and 5,000 events and starts every attack from the same state. The goals are
checked on the mean over the seeds. A genuine launch must not be slowed by the limits: it is compared with the same
premiere in a copy of the state for which all of its events count in full. Floods of records then go through the real
flows (infra/experiments/abuse_flows.py). The exit code is 1 where a goal is missed. Invented launches with distinct
texts, one per minute, have no goal: nothing tells them from real launches.

    python -m infra.experiments.abuse [--seeds 5] [--report abuse.json]
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from features.text_encoders import Encoder, load_encoder
from infra.data.simulate import simulate
from infra.experiments import abuse_attacks as attacks
from infra.experiments import abuse_flows
from infra.experiments.abuse_world import World, simulated_events
from infra.learner_settings import learner_settings, set_threads
from infra.progress import Reporter
from infra.settings import load as load_settings
from model.settings import EvidenceSettings, LearnerSettings

USERS: Final = 300
TITLES: Final = 400
EVENTS: Final = 5_000
RECOVERY_EVENTS: Final = 200  # honest events after an attack
DAYS: Final = 60.0
LIST_USERS: Final = 100  # users whose lists are compared
SHARES: Final = (0.0, 0.001, 0.005, 0.02)  # of fake events in the stream
PREMIERE_EVENTS: Final = (25, 100)
WORST_SHARE: Final = 0.02
MAX_GROWTH_MIB: Final = 32.0  # of the flows; the records of a flood that is sent three times have more
EVERY_EVENT: Final = EvidenceSettings(established_events=1, daily_repeats=0)  # every event counts in full
# Measured on 30 Nov 2026, before there were limits, with one seed and 60 lists (20 for the launches).
BEFORE: Final[Mapping[str, str]] = {
    "5 fake events, many new users": "25 % of lists, 0 % of top tens",
    "5 fake events, one user repeatedly": "25 % of lists, 0 % of top tens",
    "25 fake events, many new users": "100 % of lists, 5 % of top tens",
    "25 fake events, one user repeatedly": "95 % of lists, 3 % of top tens",
    "100 fake events, many new users": "100 % of lists, 47 % of top tens",
    "100 fake events, one user repeatedly": "100 % of lists, 40 % of top tens",
    "100 fake events, popular title first": "100 % of lists, 33 % of top tens",
    "invented ids": "all launched titles evicted",
    "64 invented launches, distinct texts": "5.0 of 5 places",
}


def run_seed(seed: int, encode: Encoder, settings: LearnerSettings, progress: Reporter) -> dict[str, dict[str, float]]:
    """The result of each attack by name, for one simulated world."""
    random = np.random.default_rng(seed)
    data = simulate(USERS, TITLES, EVENTS + RECOVERY_EVENTS, DAYS, seed)
    world = World.after(data.slice(0, EVENTS), encode, settings)
    later = simulated_events(data)[EVENTS:]
    scene = attacks.new_scene(world, later, LIST_USERS, random)
    progress.line(f"seed {seed}: learned {EVENTS:,} events, the target has few events: {scene.target}")
    results: dict[str, dict[str, float]] = {}
    for share in SHARES:
        count = round(EVENTS * share)
        for kind in attacks.KINDS if count else attacks.KINDS[:1]:
            name = f"{count} fake events, {kind}" if count else "no attack"
            results[name] = attacks.fake_events(scene, kind, count)
            progress.line(f"seed {seed}: {name}: {_cells(results[name])}")
    for name, (texts, gap_ms) in attacks.LAUNCH_FLOODS.items():
        results[name] = attacks.launch_flood(scene, texts, gap_ms, random)
        progress.line(f"seed {seed}: {name}: {_cells(results[name])}")
    results["invented ids"] = attacks.invented_ids(scene)
    results["one-event users"] = attacks.one_event_users(scene)
    results["huge texts"] = attacks.huge_texts(scene, encode)
    unlimited = world.copy(evidence=EVERY_EVENT)
    for count in PREMIERE_EVENTS:
        reached = [
            attacks.real_premiere(one, scene.users, count, np.random.default_rng(seed)) for one in (world, unlimited)
        ]
        results[f"premiere, {count} first events"] = {"lists": reached[0], "lists_without_limits": reached[1]}
    for name in list(results)[-len(PREMIERE_EVENTS) - 3 :]:
        progress.line(f"seed {seed}: {name}: {_cells(results[name])}")
    return results


def report(seeds: Sequence[int], encode: Encoder, settings: LearnerSettings, progress: Reporter) -> dict[str, Any]:
    """The results of all seeds, their means, and the goals."""
    set_threads(1)
    by_seed = [run_seed(seed, encode, settings, progress) for seed in seeds]
    means = {
        name: {key: float(np.mean([one[name][key] for one in by_seed])) for key in by_seed[0][name]}
        for name in by_seed[0]
    }
    with TemporaryDirectory() as folder:
        means |= abuse_flows.flow_attacks(Path(folder), progress)
    return {
        "seeds": list(seeds),
        "users": USERS,
        "titles": TITLES,
        "events": EVENTS,
        "attacks": {name: {**cells, "before": BEFORE.get(name, "-")} for name, cells in means.items()},
        "by_seed": by_seed,
        "goals": goals(means),
    }


def goals(means: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Each goal with its limit, the measured value, and whether it is reached."""
    worst = [f"{round(EVENTS * WORST_SHARE)} fake events, {kind}" for kind in attacks.KINDS]
    floods = [name for name in attacks.LAUNCH_FLOODS if name != attacks.LIKE_REAL_LAUNCHES]
    rows = [(f"top tens entered by {name}", means[name]["top10"], "at most", 0.05) for name in worst]
    rows += [(f"places displaced by {name}", means[name]["displaced"], "at most", 1.0) for name in floods]
    rows.append(("launched titles evicted by invented ids", means["invented ids"]["evicted_launched"], "at most", 0.0))
    rows.append(("known users evicted by one-event users", means["one-event users"]["evicted_users"], "at most", 0.0))
    for name in abuse_flows.FLOODS:
        rows.append((f"crashes of flows by {name}", means[name]["crashes"], "at most", 0.0))
        rows.append((f"MiB that flows grow by more of {name}", means[name]["grown_mib"], "at most", MAX_GROWTH_MIB))
    rows.append(("honest records lost after the floods", means[abuse_flows.AFTER_FLOODS]["lost"], "at most", 0.0))
    for count in PREMIERE_EVENTS:
        reached = means[f"premiere, {count} first events"]
        share = reached["lists"] / max(reached["lists_without_limits"], 1e-9)
        rows.append((f"lists reached by a premiere of {count} events, against no limits", share, "at least", 0.9))
    return [
        {
            "goal": f"{name}: {bound} {limit:g}",
            "value": value,
            "passed": value <= limit if bound == "at most" else value >= limit,
        }
        for name, value, bound, limit in rows
    ]


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The report as lines of text."""
    yield f"{result['users']} users, {result['titles']} titles, {result['events']:,} events, seeds {result['seeds']}"
    for name, cells in result["attacks"].items():
        yield f"  {name:<48}{_cells(cells)}"
        if cells["before"] != "-":
            yield f"  {'':<48}before there were limits: {cells['before']}"
    yield ""
    for goal in result["goals"]:
        yield f"{'reached' if goal['passed'] else 'MISSED':<9}{goal['value']:>8.3f}   {goal['goal']}"


def _cells(cells: Mapping[str, Any]) -> str:
    return "  ".join(f"{key} {value:.3g}" for key, value in cells.items() if key != "before")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all attacks, write the report, and return 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="number of simulated worlds")
    parser.add_argument("--report", type=Path, default=Path("abuse.json"))
    given = parser.parse_args(arguments)
    result = report(range(given.seeds), load_encoder(), learner_settings(load_settings()), Reporter())
    given.report.write_text(json.dumps(result, indent=1) + "\n")
    print(*lines(result), sep="\n")
    return 0 if all(goal["passed"] for goal in result["goals"]) else 1


if __name__ == "__main__":
    sys.exit(main())
