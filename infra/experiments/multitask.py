"""`premiere tasks`: whether one backbone can serve several tasks, and whether sharing it helps any of them.

Beside the next title there are what the viewer does with it and its genre (`model.sequence.tasks`). One network is trained on
all of them, and each task has a rival whose backbone is trained on it alone; all learn from one stream in one run, and
whatever they say of an event they say before it is learned. Beside them stand simple ways that count. An event without
a true class, such as a title without genres, is left out of that task; a task with fewer than two classes altogether.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.text_encoders import Encoder
from infra.charts import COLOURS, LOOK, SERIES
from infra.data.datasets import DataSet
from infra.experiments.harness import ALONE, Parts, Recorded, Say, actions, head, scored, stream, watched
from infra.experiments.task_evaluators import LIKING, OF, SIMPLE, TITLED, simple, with_heads
from infra.experiments.verdicts import FEW, told
from infra.run.learn import numerics
from model.actions import WEIGHTS
from model.learner import Learner, LearnerSettings
from model.metrics import bootstrap
from model.pipeline import RankingPipeline
from model.sequence.tasks import ACTION, GENRE, LIKED, TASKS
from streaming.records import action_code

TITLE: Final = "title only"
SHARED: Final = "shared"
ONLY: Final = " only"  # after a task: its own backbone
SLICES: Final = ("all", "new_titles", "new_users")
LISTS, BACKBONE, LIKE = "next title, the final lists", "next title, the backbone alone", "liked or not"
WORDS: Final = {ACTION: "what the viewer does with it", GENRE: "the next title's genre"}
NONE: Final = {
    ACTION: "All events are of one action: what the viewer does with a title is left out.",
    GENRE: "The titles have fewer than two genres: the next title's genre is left out.",
}


def known_tasks(data: DataSet) -> dict[str, int]:
    """The tasks that the data can be asked, with how many classes each has."""
    actions = {action_code(data.event(k)) for k in range(len(data))}
    genres = {genre.strip().lower() for title in data.launches_with_events() for genre in title.genres}
    classes = {ACTION: sum(WEIGHTS[code] > 0 for code in actions), GENRE: len(genres)}
    return {task: many for task, many in classes.items() if many > 1}


def pipelines(settings: LearnerSettings, tasks: Sequence[str], weight: float) -> dict[str, RankingPipeline]:
    """All that take part; of those that are trained on one further task, nobody asks a list."""
    shared = with_heads(settings, tasks, 1.0, weight, lists=True)
    found: dict[str, RankingPipeline] = {TITLE: watched(settings), SHARED: shared}
    found |= {task + ONLY: with_heads(settings, [task], 0.0, 1.0, lists=False) for task in tasks}
    for way in SIMPLE:
        asked = [task for task in tasks if TASKS[task].titled or way not in TITLED]
        if asked:
            found[way] = simple(settings, way, asked)
    return found


def report(
    data: DataSet, encode: Encoder, settings: LearnerSettings, say: Say, weight: float | None = None
) -> dict[str, Any]:
    """By panel, a way to be asked: how each contender does by slice, and what the shared backbone gains on each."""
    numerics(1)
    weight = settings.sequence.objective.task_weight if weight is None else weight
    tasks = known_tasks(data)
    panels, recorded = {}, Recorded()
    if tasks:
        entered = pipelines(settings, list(tasks), weight)
        recorded = scored(stream(data, encode, Learner(settings, entered), say))
        panels = {LISTS: _ranked(recorded, ""), BACKBONE: _ranked(recorded, ALONE)}
        panels |= {WORDS[task]: _ranked(recorded, OF + task, task + ONLY) for task in tasks}
    if ACTION in tasks:
        panels[LIKE] = _liked(recorded, data)
    return {
        **head(data, recorded),
        "weight": weight,
        "classes": tasks,
        "left_out": [NONE[task] for task in TASKS if task not in tasks],
        "settings": asdict(settings),
        "panels": panels,
    }


def _ranked(recorded: Recorded, of: str, own: str = TITLE) -> dict[str, Any]:
    """MRR of what is told of contenders under this ending; `own`: the rival that has a backbone for it alone."""
    ways = SIMPLE if of.startswith(OF) else ()
    names = [name for name in (own, SHARED, *ways) if name + of in recorded.ranks]
    known_N = ~np.isnan(np.array(recorded.ranks[SHARED + of]))
    parts = _parts(recorded, known_N)
    return {
        "measure": "MRR",
        "own": own,
        "events": {part: int(inside.sum()) for part, inside in parts.items()},
        "found": {name: recorded.mrr(name + of, parts) for name in names},
        "gain": {name: recorded.gain(SHARED + of, name + of, parts) for name in names if name != SHARED},
    }


def _liked(recorded: Recorded, data: DataSet) -> dict[str, Any]:
    """The share of events of which it is rightly said whether the viewer finishes or likes the title; of all of them
    the area under the curve, too, which no threshold is in."""
    truth_N = LIKED.numpy()[actions(data, recorded)]
    own = ACTION + ONLY
    likely = {name: np.array(recorded.ranks[name + LIKING]) for name in (own, SHARED, *SIMPLE)}
    right = {name: ((likely_N >= 0.5) == truth_N).astype(np.float64) for name, likely_N in likely.items()}
    parts, user_N = _parts(recorded, np.ones(len(truth_N), np.bool_)), np.array(recorded.users)

    def gain(name: str, inside_N: NDArray[np.bool_]) -> dict[str, float] | None:
        found = bootstrap.interval((right[SHARED] - right[name])[inside_N], user_N[inside_N])
        return None if found is None else found._asdict()

    return {
        "measure": "accuracy",
        "own": own,
        "events": {part: int(inside.sum()) for part, inside in parts.items()},
        "liked": float(truth_N.mean()),
        "found": {
            name: {part: float(right_N[inside].mean()) if inside.any() else None for part, inside in parts.items()}
            for name, right_N in right.items()
        },
        "auc": {name: area(likely_N, truth_N) for name, likely_N in likely.items()},
        "gain": {
            name: {part: gain(name, inside) for part, inside in parts.items()} for name in right if name != SHARED
        },
    }


def _parts(recorded: Recorded, known_N: NDArray[np.bool_]) -> Parts:
    return {part: inside & known_N for part, inside in recorded.slices().items() if part in SLICES}


def area(score_N: NDArray[np.floating[Any]], truth_N: NDArray[np.bool_]) -> float | None:
    """How often a true event's score is above that of one that is not, a tie counting half; None without either."""
    true, false = int(truth_N.sum()), int((~truth_N).sum())
    if not true or not false:
        return None
    _, place_N, many_S = np.unique(score_N, return_inverse=True, return_counts=True)
    rank_S = np.cumsum(many_S) - (many_S - 1) / 2
    return float((rank_S[place_N][truth_N].sum() - true * (true + 1) / 2) / (true * false))


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The report for reading."""
    yield f"{found['data']}: {found['events']:,} events, {found['scored']:,} scored, {found['users']:,} users"
    yield from found["left_out"]
    if not found["panels"]:
        yield "There is nothing to share a backbone with."
        return
    classes = ", ".join(f"{many} of {task}" for task, many in found["classes"].items())
    yield f"classes: {classes}; each further task's loss counts {found['weight']:g} beside the next title's 1"
    for title, panel in found["panels"].items():
        yield ""
        shown = "".join(f"{part.replace('_', ' '):>12}" for part in SLICES)
        yield f"{title + ': ' + panel['measure']:<46}{shown}   shared over it, of all, with its interval by users"
        yield f"  {'events':<44}" + "".join(f"{panel['events'][part]:>12,}" for part in SLICES)
        for name, by_part in panel["found"].items():
            cells = "".join(f"{'-' if by_part[part] is None else f'{by_part[part]:.4f}':>12}" for part in SLICES)
            area = f" (AUC {panel['auc'][name]:.4f})" if panel.get("auc", {}).get(name) is not None else ""
            gain = panel["gain"].get(name, {}).get("all")
            yield f"  {name + area:<44}{cells}   {told(gain) if gain else ''}".rstrip()
    yield ""
    yield from verdicts(found)


def verdicts(found: Mapping[str, Any]) -> Iterator[str]:
    """What the intervals over all events say of sharing, and of the heads beside the simple ways."""
    for title, panel in found["panels"].items():
        own = panel["own"]
        gains = panel["gain"][own]
        yield f"{title}: {_sharing(gains['all'], own, panel['measure'])}"
        new = [f"{part.replace('_', ' ')} {told(gains[part])}" for part in SLICES[1:] if gains[part]]
        yield f"  {', '.join(new) or 'no event is of a new title or user'}"
        ways = {name: of["all"] for name, of in panel["found"].items() if name in SIMPLE and of["all"] is not None}
        if ways:
            best = max(ways, key=lambda name: ways[name])
            yield f"  beside the best that counts: {_beside(panel['gain'][best]['all'], best)}"


def _sharing(gain: Mapping[str, float] | None, own: str, measure: str) -> str:
    if gain is None:
        return "no verdict, for nothing was scored."
    over = f"{measure} {told(gain)} over '{own}', {gain['events']:,} events of {gain['users']:,} users"
    if gain["users"] < FEW:
        return f"no verdict, for these are too few users: {over}."
    if gain["low"] > 0:
        return f"sharing helps: {over}."
    if gain["high"] < 0:
        return f"sharing hurts: {over}."
    return f"sharing makes no difference that these events can tell: {over}."


def _beside(gain: Mapping[str, float] | None, best: str) -> str:
    if gain is None or gain["users"] < FEW:
        return "no verdict."
    if gain["low"] > 0:
        return f"the shared head is better than '{best}', {told(gain)}."
    if gain["high"] < 0:
        return f"the shared head is worse than '{best}', {told(gain)}."
    return f"the shared head and '{best}' cannot be told apart, {told(gain)}."


def draw(found: Mapping[str, Any], path: Path) -> None:
    """A panel a task, with each contender by slice; the last: what sharing gains, with its intervals (PNG)."""
    import matplotlib.pyplot as plt

    with plt.rc_context(LOOK):
        figure, places = plt.subplots(2, 3, figsize=(13.5, 8), layout="constrained")
        panels = found["panels"]
        for axes, (title, panel) in zip(places.flat, panels.items(), strict=False):
            for name, by_part in panel["found"].items():
                style, aside = _style(name)
                values = [np.nan if by_part[part] is None else by_part[part] for part in SLICES]
                axes.plot(np.arange(len(SLICES)) + aside, values, label=name, **style)
            ticks = [f"{part.replace('_', ' ')}\n({panel['events'][part]:,})" for part in SLICES]
            axes.set_xticks(range(len(SLICES)), ticks)
            axes.set(title=title, ylabel=panel["measure"], xlim=(-0.5, len(SLICES) - 0.5))
        for axes in places.flat[len(panels) : -1]:
            axes.set_axis_off()
        _draw_gains(places.flat[-1], panels)
        marks = {
            label: line
            for axes in places.flat[:-1]
            for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if marks:
            figure.legend(list(marks.values()), list(marks), loc="outside lower center", ncols=5, fontsize=10)
        figure.savefig(path, format="png", dpi=100, metadata={"Software": None})
        plt.close(figure)


def _draw_gains(axes: Any, panels: Mapping[str, Any]) -> None:
    """What sharing gains on a backbone for the task alone: a row a panel, a mark a slice."""
    for k, (part, mark) in enumerate(zip(SLICES, "os^", strict=True)):
        known = [(row, panel["gain"][panel["own"]][part]) for row, panel in enumerate(panels.values())]
        shown = [(row + 0.22 * (k - 1), gain) for row, gain in known if gain]
        for row, gain in shown:
            axes.plot([gain["low"], gain["high"]], [row, row], color=SERIES[k], lw=1.6)
        rows, means = [row for row, _ in shown], [gain["mean"] for _, gain in shown]
        axes.plot(means, rows, mark, color=SERIES[k], ms=6, label=part.replace("_", " "))
    axes.axvline(0, color="#666666", lw=1)
    axes.set_yticks(range(len(panels)), [_broken(title) for title in panels], fontsize=9.5)
    axes.set(title="shared less a backbone for it alone", ylim=(max(len(panels), 1) - 0.5, -0.5))
    axes.legend(fontsize=9.5)


def _broken(title: str) -> str:
    """Over two lines, at about the middle."""
    words = title.split()
    half = (len(words) + 1) // 2
    return " ".join(words[:half]) + "\n" + " ".join(words[half:])


def _style(name: str) -> tuple[dict[str, Any], float]:
    """How a contender is marked, and how far beside the middle."""
    if name not in SIMPLE:
        colour = COLOURS["full"] if name == SHARED else SERIES[2]
        return {"color": colour, "marker": "o", "ms": 8, "lw": 0, "zorder": 3}, 0.1 if name == SHARED else -0.1
    colour = (SERIES[0], SERIES[5], SERIES[4], SERIES[1], "#8e6c8a")[SIMPLE.index(name)]
    return {"color": colour, "marker": "_", "ms": 26, "mew": 2, "lw": 0}, 0.0
