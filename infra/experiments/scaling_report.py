"""The report of `premiere scaling` as text and as a figure.

Every sentence follows from a confidence interval: of the gain of doubling a size by the fitted offset law, of the
saturation level P0, or of the measured gain of the largest size over smaller ones.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib import colormaps

from infra.charts import figure, legend_below
from infra.experiments.backbone_ranks import FINAL_LISTS, ORDER_LABELS
from infra.experiments.scaling import NO_BACKBONE
from infra.experiments.verdicts import INCONCLUSIVE, format_ci
from model.metrics.scaling_law import LAWS

MIN_DOUBLING_GAIN: Final = 0.01  # share of a size's MRR; a size is worth doubling if the gain is at least this
MAX_P0_WIDTH: Final = 0.5  # share of the best MRR; a P0 with a wider interval is inconclusive
PAYS, DOES_NOT_PAY = "PAYS", "DOES_NOT_PAY"  # verdicts on growing, beside INCONCLUSIVE
SATURATES, FLAT = "SATURATES", "FLAT"  # verdicts on the limit of growth, beside INCONCLUSIVE


def growth_verdict(order_result: Mapping[str, Any]) -> dict[str, Any]:
    """Whether doubling a backbone is worth it, by the interval of the gain of doubling.

    DOES_NOT_PAY: doubling `size`, and every larger size, gains less than MIN_DOUBLING_GAIN. Otherwise `size` is the
    largest size, and the verdict is PAYS or INCONCLUSIVE. `gain` is the gain of doubling `size`.
    """
    gains = order_result["law"]["doubling"]
    names = list(order_result["mrr"])[: len(gains)]
    wanted = [MIN_DOUBLING_GAIN * order_result["mrr"][name] for name in names]
    worth_it = [s for s, (gain, least) in enumerate(zip(gains, wanted, strict=True)) if gain["high"] >= least]
    enough = worth_it[-1] + 1 if worth_it else 0
    if enough < len(names):
        return {"verdict": DOES_NOT_PAY, "size": names[enough], "gain": gains[enough]}
    word = PAYS if gains[-1]["low"] >= wanted[-1] else INCONCLUSIVE
    return {"verdict": word, "size": names[-1], "gain": gains[-1]}


def saturation_verdict(order_result: Mapping[str, Any]) -> str:
    """FLAT if quality does not grow with size, SATURATES if P0 has a bounded and narrow interval, else INCONCLUSIVE."""
    law, best = order_result["law"], max(order_result["mrr"].values())
    p0 = law["p0"]
    if law["a"] is None:
        return FLAT
    bounded = p0["fit"] is not None and p0["high"] is not None
    return SATURATES if bounded and p0["high"] - p0["low"] <= MAX_P0_WIDTH * best else INCONCLUSIVE


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The report as lines of text."""
    lr = result["settings"]["sequence"]["optim"]["lr"]
    yield f"{result['data']}: {result['events']:,} events, {result['scored']:,} scored, {result['users']:,} users"
    yield f"Seeds per size: {result['seeds']}. Learning rate of all sizes: {lr:g}."
    yield ""
    yield from _sizes(result)
    for order in ORDER_LABELS:
        yield ""
        yield from _measured(result, order)
        yield ""
        yield from _laws(result, order)
    yield ""
    yield from conclusions(result)


def _sizes(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"{'size':<12}{'parameters':>14}{'heads':>7}{'CPU s':>10}{'ratio':>8}"
    smallest = next(iter(result["sizes"].values()))["cpu_seconds"]
    for name, size in result["sizes"].items():
        cost = f"{size['cpu_seconds']:>10.1f}{size['cpu_seconds'] / max(smallest, 1e-9):>8.1f}"
        yield f"{name:<12}{size['parameters']:>14,}{size['heads']:>7}{cost}"
    yield f"{NO_BACKBONE:<33}{result['no_backbone_cpu_seconds']:>10.1f}   (the ranker, included in every size)"


def _measured(result: Mapping[str, Any], order: str) -> Iterator[str]:
    reference = [NO_BACKBONE] if order == FINAL_LISTS else []
    columns = "".join(f"{name:>9}" for name in result["sizes"]) + "".join(f"{name:>13}" for name in reference)
    yield f"{'MRR, ' + ORDER_LABELS[order]:<34}{'events':>7}{columns}"
    for task, by_order in result["tasks"].items():
        mrr = by_order[order]["mrr"]
        names = [*result["sizes"], *reference]
        cells = "".join(f"{mrr[name]:>{13 if name == NO_BACKBONE else 9}.4f}" for name in names)
        yield f"  {task:<32}{by_order['events']:>7,}{cells}"


def _laws(result: Mapping[str, Any], order: str) -> Iterator[str]:
    yield f"{'Laws, ' + ORDER_LABELS[order]:<34}{'P0':>13}{'95 % CI':>28}{'a':>7}{'N0':>10}   RMSE x 1e3, leave-one-out"
    yield " " * 95 + "offset      log-linear"
    for task, by_order in result["tasks"].items():
        law = by_order[order]["law"]
        a, n0 = ("-" if law[key] is None else f"{law[key]:.2g}" for key in ("a", "n0"))
        errors = "   ".join(
            f"{1000 * law['rmse'][name]:.2f}, {1000 * law['leave_one_out_rmse'][name]:.2f}" for name in LAWS
        )
        yield f"  {task:<32}{_value(law['p0']['fit']):>13}{_bounds(law['p0']):>28}{a:>7}{n0:>10}   {errors}"


def _bounds(p0: Mapping[str, Any]) -> str:
    return f"[{_value(p0['low'])}, {_value(p0['high'])}]"


def _value(p0: float | None) -> str:
    return "unbounded" if p0 is None else f"{p0:.4f}"


def conclusions(result: Mapping[str, Any]) -> Iterator[str]:
    """The spread of seeds, then the verdicts by task and order, as sentences."""
    yield _seed_spread(result)
    for task, by_order in result["tasks"].items():
        yield f"{task}:"
        for order, label in ORDER_LABELS.items():
            growth, saturation = describe_growth(by_order[order], result), describe_saturation(by_order[order])
            yield f"  {label}: {growth}; {saturation}. Measured: {_largest(by_order[order], result)}."


def _seed_spread(result: Mapping[str, Any]) -> str:
    if not result["tasks"]:
        return "No task has enough events and users for a conclusion."
    if result["seeds"] == 1:
        return "One seed per size: the intervals do not include the variation between seeds."
    task, by_order = next(iter(result["tasks"].items()))
    spread = (
        f"{max(max(runs) - min(runs) for runs in by_order[order]['by_seed'].values()):.4f} ({label})"
        for order, label in ORDER_LABELS.items()
    )
    return f"Largest difference in MRR between two seeds of one size, task '{task}': {', '.join(spread)}."


def describe_growth(order_result: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """The growth verdict as part of a sentence."""
    growth, sizes = growth_verdict(order_result), result["sizes"]
    name, largest, least = growth["size"], list(sizes)[-1], f"{MIN_DOUBLING_GAIN:.0%} of its MRR"
    gain = f"doubling it gains {format_ci(growth['gain'])}"
    if growth["verdict"] == PAYS:
        return f"growing beyond {name} pays: {gain}, at least {least}"
    if growth["verdict"] == INCONCLUSIVE:
        return f"growing beyond {name} is inconclusive: {gain}"
    ratio = sizes[largest]["cpu_seconds"] / max(sizes[name]["cpu_seconds"], 1e-9)
    cost = f"; {largest} takes {ratio:.1f} times its CPU time" if name != largest else ""
    size = f"{name} ({sizes[name]['parameters']:,} parameters)"
    return f"growing beyond {size} does not pay: {gain}, less than {least}{cost}"


def describe_saturation(order_result: Mapping[str, Any]) -> str:
    """The saturation verdict as part of a sentence."""
    law = order_result["law"]
    p0, verdict = law["p0"], saturation_verdict(order_result)
    estimate = f"P0 {_value(p0['fit'])} {_bounds(p0)}"
    above_1 = any(bound is not None and bound > 1 for bound in (p0["fit"], p0["high"]))
    note = ", values above 1 are an artifact of the fit" if above_1 else ""
    if verdict == FLAT:
        return f"MRR does not grow with size ({estimate})"
    if verdict == SATURATES:
        return f"growth saturates at {estimate}{note}"
    if p0["fit"] is None or p0["high"] is None:
        note = f", {law['at_lower_bound']:.0%} of the resamples show no saturation{note}"
    return f"saturation is inconclusive ({estimate}{note})"


def _largest(order_result: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """The gains of the largest size over the smallest size, the current size and no backbone."""
    names = list(result["sizes"])
    references = dict.fromkeys([names[0], result["current_size"], NO_BACKBONE])
    gains = {name: order_result["gain_of_largest"].get(name) for name in references}
    return ", ".join(f"{names[-1]} less {name} {format_ci(gain)}{_sign(gain)}" for name, gain in gains.items() if gain)


def _sign(gain: Mapping[str, float]) -> str:
    return " (better)" if gain["low"] > 0 else " (worse)" if gain["high"] < 0 else ""


def draw(result: Mapping[str, Any], path: Path) -> None:
    """MRR over the number of parameters with both laws, and P0 with its interval."""
    with figure(path, (14, 6), columns=2) as panels:
        for axes, order in zip(panels, ORDER_LABELS, strict=True):
            _draw_order(axes, order, result)
        panels[0].set_ylabel(f"MRR, {result['data']}")
        legend_below(panels[:1])


def _draw_order(axes: Any, order: str, result: Mapping[str, Any]) -> None:
    n_S = np.array([size["parameters"] for size in result["sizes"].values()], float)
    grid = np.geomspace(n_S[0], n_S[-1], 100)
    top = 1.15 * max((max(by_order[order]["mrr"].values()) for by_order in result["tasks"].values()), default=1.0)
    for k, (task, by_order) in enumerate(result["tasks"].items()):
        mrr, color = by_order[order]["mrr"], colormaps["tab10"](k)
        p_S = np.array([mrr[name] for name in result["sizes"]])
        axes.plot(n_S, p_S, "o", color=color, ms=6, label=f"{task} ({by_order['events']:,})")
        for fit, style in zip(LAWS.values(), ("-", ":"), strict=True):
            axes.plot(grid, fit(n_S, p_S[None]).at(grid)[0], style, color=color, lw=1.6)
        p0, x = by_order[order]["law"]["p0"], n_S[-1] * 2.2 * 1.25**k
        axes.plot([x, x], [p0["low"], top if p0["high"] is None else p0["high"]], color=color, lw=1.6)
        axes.plot([x], [top if p0["fit"] is None else p0["fit"]], "_", color=color, ms=8)
        if NO_BACKBONE in mrr:
            axes.plot([n_S[0] / 2], [mrr[NO_BACKBONE]], "o", color=color, mfc="none", ms=6)
    hollow = "; hollow: no backbone" if order == FINAL_LISTS else ""
    label = f"parameters of the backbone{hollow}; right: P0 with its 95 % CI"
    axes.set(xscale="log", ylim=(0, top), xlabel=label, title=ORDER_LABELS[order])
