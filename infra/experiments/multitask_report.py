"""The report of `premiere multitask` as text and as a figure. Every sentence follows from a confidence interval."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from infra.charts import COLORS, SERIES_COLORS, figure, legend_below
from infra.experiments.multitask import SHARED, SLICES_SHOWN
from infra.experiments.task_evaluators import FREQUENCY_BASELINES
from infra.experiments.verdicts import BETTER, INCONCLUSIVE, WORSE, format_ci, format_size

SHARING: Final = {BETTER: "sharing helps", WORSE: "sharing hurts", INCONCLUSIVE: "sharing is inconclusive"}


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The report as lines of text."""
    yield f"{result['data']}: {result['events']:,} events, {result['scored']:,} scored, {result['users']:,} users"
    yield from result["left_out"]
    if not result["panels"]:
        yield "There is no further task to share the backbone with."
        return
    classes = ", ".join(f"{count} of {task}" for task, count in result["classes"].items())
    yield f"classes: {classes}; weight of each further task's loss: {result['weight']:g} (next title: 1)"
    for title, panel in result["panels"].items():
        yield ""
        yield from _panel(title, panel)
    yield ""
    yield from conclusions(result)


def _panel(title: str, panel: Mapping[str, Any]) -> Iterator[str]:
    columns = "".join(f"{_label(part):>12}" for part in SLICES_SHOWN)
    yield f"{title + ': ' + panel['metric']:<46}{columns}   gain of shared over it, all events, with its 95 % CI"
    yield f"  {'events':<44}" + "".join(f"{panel['events'][part]:>12,}" for part in SLICES_SHOWN)
    for name, by_part in panel["values"].items():
        cells = "".join(f"{'-' if by_part[part] is None else f'{by_part[part]:.4f}':>12}" for part in SLICES_SHOWN)
        auc = f" (AUC {panel['auc'][name]:.4f})" if panel.get("auc", {}).get(name) is not None else ""
        gain = panel["gain"].get(name, {}).get("all")
        yield f"  {name + auc:<44}{cells}   {format_ci(gain) if gain else ''}".rstrip()


def conclusions(result: Mapping[str, Any]) -> Iterator[str]:
    """The verdicts of each panel as sentences."""
    for title, panel in result["panels"].items():
        verdicts, dedicated = panel["verdicts"], panel["dedicated"]
        gains = panel["gain"][dedicated]
        yield f"{title}: {SHARING[verdicts['sharing']]}: {_gain(gains['all'], panel['metric'])} over '{dedicated}'."
        new = [f"{_label(part)} {format_ci(gains[part])}" for part in SLICES_SHOWN[1:] if gains[part]]
        yield f"  {', '.join(new) or 'no event of a new title or a new user'}"
        if best := verdicts["best_baseline"]:
            gain = _gain(panel["gain"][best]["all"], panel["metric"])
            yield f"  against the best baseline, '{best}': {verdicts['against_baseline']}: {gain}."


def _gain(gain: Mapping[str, float] | None, metric: str) -> str:
    return "nothing was scored" if gain is None else f"{metric} {format_ci(gain)} ({format_size(gain)})"


def _label(part: str) -> str:
    return part.replace("_", " ")


def draw(result: Mapping[str, Any], path: Path) -> None:
    """One panel per task with each variant by slice, and a last one with the gains of sharing."""
    with figure(path, (13.5, 8), rows=2, columns=3) as all_axes:
        panels = result["panels"]
        for axes, (title, panel) in zip(all_axes, panels.items(), strict=False):
            _draw_panel(axes, title, panel)
        for axes in all_axes[len(panels) : -1]:
            axes.set_axis_off()
        _draw_gains(all_axes[-1], panels)
        legend_below(all_axes[:-1], columns=5)


def _draw_panel(axes: Any, title: str, panel: Mapping[str, Any]) -> None:
    for name, by_part in panel["values"].items():
        style, offset = _style(name)
        values = [np.nan if by_part[part] is None else by_part[part] for part in SLICES_SHOWN]
        axes.plot(np.arange(len(SLICES_SHOWN)) + offset, values, label=name, **style)
    axes.set_xticks(range(len(SLICES_SHOWN)), [f"{_label(part)}\n({panel['events'][part]:,})" for part in SLICES_SHOWN])
    axes.set(title=title, ylabel=panel["metric"], xlim=(-0.5, len(SLICES_SHOWN) - 0.5))


def _draw_gains(axes: Any, panels: Mapping[str, Any]) -> None:
    """The gain of sharing over a dedicated backbone: one row per panel, one mark per slice."""
    for k, (part, mark) in enumerate(zip(SLICES_SHOWN, "os^", strict=True)):
        gains = [(row, panel["gain"][panel["dedicated"]][part]) for row, panel in enumerate(panels.values())]
        scored = [(row + 0.22 * (k - 1), gain) for row, gain in gains if gain]
        for y, gain in scored:
            axes.plot([gain["low"], gain["high"]], [y, y], color=SERIES_COLORS[k], lw=1.6)
        ys, means = [y for y, _ in scored], [gain["mean"] for _, gain in scored]
        axes.plot(means, ys, mark, color=SERIES_COLORS[k], ms=6, label=_label(part))
    axes.axvline(0, color="#666666", lw=1)
    axes.set_yticks(range(len(panels)), [_in_two_lines(title) for title in panels], fontsize=9.5)
    axes.set(title="shared less dedicated backbone", ylim=(max(len(panels), 1) - 0.5, -0.5))
    axes.legend(fontsize=9.5)


def _in_two_lines(title: str) -> str:
    words = title.split()
    half = (len(words) + 1) // 2
    return " ".join(words[:half]) + "\n" + " ".join(words[half:])


def _style(name: str) -> tuple[dict[str, Any], float]:
    """The marker of a variant, and its horizontal offset."""
    if name not in FREQUENCY_BASELINES:
        color = COLORS["full"] if name == SHARED else SERIES_COLORS[2]
        return {"color": color, "marker": "o", "ms": 8, "lw": 0, "zorder": 3}, 0.1 if name == SHARED else -0.1
    colors = (SERIES_COLORS[0], SERIES_COLORS[5], SERIES_COLORS[4], SERIES_COLORS[1], "#8e6c8a")
    color = colors[FREQUENCY_BASELINES.index(name)]
    return {"color": color, "marker": "_", "ms": 26, "mew": 2, "lw": 0}, 0.0
