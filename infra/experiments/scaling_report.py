"""The report of `premiere scaling` for reading and as a figure.

What is said in words follows from intervals: of the gain of doubling a size by the fitted offset law, of P0, and of the
largest size less smaller ones as they were measured.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from infra.charts import LOOK
from infra.experiments.scaling import WITHOUT
from infra.experiments.verdicts import told
from model.metrics.scaling_law import LAWS

WORTH: Final = 0.01  # share of a size's MRR that doubling it must gain
WIDE: Final = 0.5  # share of the best MRR: of a P0 whose interval is wider nothing is said
TITLES: Final = {"alone": "the backbone alone", "lists": "the final lists"}


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The report for reading."""
    lr = found["settings"]["sequence"]["optim"]["lr"]
    yield f"{found['data']}: {found['events']:,} events, {found['scored']:,} scored, {found['users']:,} users"
    yield f"Each size learned {found['seeds']} times, with other seeds; all at the learning rate {lr:g}."
    yield ""
    yield from _sizes(found)
    for order, title in TITLES.items():
        yield ""
        yield from _measured(found, order, title)
        yield ""
        yield from _laws(found, order, title)
    yield ""
    yield from verdicts(found)


def _sizes(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"{'size':<12}{'parameters':>14}{'heads':>7}{'seconds':>10}{'times':>8}"
    least = next(iter(found["sizes"].values()))["seconds"]
    for name, of in found["sizes"].items():
        cost = f"{of['seconds']:>10.1f}{of['seconds'] / max(least, 1e-9):>8.1f}"
        yield f"{name:<12}{of['parameters']:>14,}{of['heads']:>7}{cost}"
    yield f"{WITHOUT:<33}{found['seconds_without']:>10.1f}   (the ranker, which is in every size's seconds)"


def _measured(found: Mapping[str, Any], order: str, title: str) -> Iterator[str]:
    columns = [*found["sizes"], *([WITHOUT] if order == "lists" else [])]
    yield (
        f"{'MRR of ' + title:<34}{'events':>7}"
        + "".join(f"{name:>9}" for name in columns[: len(found["sizes"])])
        + (f"{WITHOUT:>13}" if order == "lists" else "")
    )
    for task, of in found["tasks"].items():
        mrr = of[order]["mrr"]
        cells = "".join(f"{mrr[name]:>{13 if name == WITHOUT else 9}.4f}" for name in columns)
        yield f"  {task:<32}{of['events']:>7,}{cells}"


def _laws(found: Mapping[str, Any], order: str, title: str) -> Iterator[str]:
    yield f"{'Laws of ' + title:<34}{'P0':>8}{'interval':>18}{'a':>7}{'N0':>10}   error x 1e3 of the fit, and left out"
    yield " " * 80 + "offset      log-linear"
    for task, of in found["tasks"].items():
        fit = of[order]["law"]
        a, n0 = ("-" if fit[key] is None else f"{fit[key]:.2g}" for key in ("a", "n0"))
        errors = "   ".join(f"{1000 * fit['rmse'][law]:.2f}, {1000 * fit['left_out'][law]:.2f}" for law in LAWS)
        yield f"  {task:<32}{_value(fit['p0']['fit']):>8}{_bounds(fit['p0']):>18}{a:>7}{n0:>10}   {errors}"


def _bounds(p0: Mapping[str, Any]) -> str:
    return f"[{_value(p0['low'])}, {_value(p0['high'])}]"


def _value(p0: float | None) -> str:
    return "no end" if p0 is None else f"{p0:.4f}"


def verdicts(found: Mapping[str, Any]) -> Iterator[str]:
    """A sentence a task and order, and before them what seeds do."""
    yield _of_seeds(found)
    for task, of in found["tasks"].items():
        yield f"{task}:"
        for order, title in TITLES.items():
            yield f"  {title}: {worth(of[order], found)}; {end(of[order])}. Measured: {_largest(of[order], found)}."


def _of_seeds(found: Mapping[str, Any]) -> str:
    if not found["tasks"]:
        return "No task has enough events and users to say anything."
    if found["seeds"] == 1:
        return "One seed a size: intervals do not know how far two seeds of one size are apart."
    task, of = next(iter(found["tasks"].items()))
    apart = (
        f"{max(max(runs) - min(runs) for runs in of[order]['by_seed'].values()):.4f} ({title})"
        for order, title in TITLES.items()
    )
    return f"Two seeds of one size are apart in MRR of {task} by up to {' and '.join(apart)}."


def worth(of: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Whether a bigger backbone is worth it, by the interval of the gain of doubling."""
    names, gains = list(found["sizes"]), of["law"]["doubling"]
    least = [WORTH * of["mrr"][name] for name in names]
    big = [place for place, (gain, wanted) in enumerate(zip(gains, least, strict=True)) if gain["high"] >= wanted]
    enough = big[-1] + 1 if big else 0
    if enough < len(names):
        name, largest = names[enough], names[-1]
        size, cost = found["sizes"][name]["parameters"], found["sizes"][largest]["seconds"]
        times = cost / max(found["sizes"][name]["seconds"], 1e-9)
        more = f"; {largest} takes {times:.1f} times its seconds" if name != largest else ""
        return (
            f"bigger than {name} ({size:,} parameters) is not worth it: doubling it gains {told(gains[enough])}, "
            f"less than {WORTH:.0%} of its MRR{more}"
        )
    if gains[-1]["low"] >= least[-1]:
        return f"bigger pays: doubling {names[-1]} would gain {told(gains[-1])}, {WORTH:.0%} of its MRR or more"
    return f"these events cannot tell whether bigger than {names[-1]} pays: doubling it gains {told(gains[-1])}"


def end(of: Mapping[str, Any]) -> str:
    """What can be said of P0."""
    fit, top = of["law"], max(of["mrr"].values())
    p0 = fit["p0"]
    told = f"P0 {_value(p0['fit'])} {_bounds(p0)}"
    history = [bound for bound in (p0["fit"], p0["high"]) if bound is not None and bound > 1]
    over = ", of which what passes 1 is slack of the fit, for no MRR does" if history else ""
    if fit["a"] is None:
        return f"the fit does not grow with size ({told})"
    if p0["fit"] is None or p0["high"] is None:
        return f"where growth ends cannot be said ({told}: {fit['endless']:.0%} of the draws show no end{over})"
    if p0["high"] - p0["low"] > WIDE * top:
        return f"where growth ends cannot be said ({told}{over})"
    return f"growth ends at {told}{over}"


def _largest(of: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The largest size less the smallest, the one in force, and none."""
    names = list(found["sizes"])
    rivals = dict.fromkeys([names[0], found["as_set"], WITHOUT])
    gains = {rival: of["largest_less"][rival] for rival in rivals if rival in of["largest_less"]}
    return ", ".join(f"{names[-1]} less {rival} {told(gain)}{_sign(gain)}" for rival, gain in gains.items())


def _sign(gain: Mapping[str, float]) -> str:
    return " (better)" if gain["low"] > 0 else " (worse)" if gain["high"] < 0 else ""


def draw(found: Mapping[str, Any], path: Path) -> None:
    """MRR over the number of parameters with both laws, and P0 with its interval beside (PNG)."""
    import matplotlib.pyplot as plt

    n_S = np.array([of["parameters"] for of in found["sizes"].values()], float)
    grid = np.geomspace(n_S[0], n_S[-1], 100)
    with plt.rc_context(LOOK):
        figure, places = plt.subplots(1, 2, figsize=(14, 6), layout="constrained")
        for axes, (order, title) in zip(places, TITLES.items(), strict=True):
            top = 1.15 * max((max(of[order]["mrr"].values()) for of in found["tasks"].values()), default=1.0)
            for k, (task, of) in enumerate(found["tasks"].items()):
                colour, p_S = plt.get_cmap("tab10")(k), np.array([of[order]["mrr"][name] for name in found["sizes"]])
                axes.plot(n_S, p_S, "o", color=colour, ms=6, label=f"{task} ({of['events']:,})")
                for fit, style in zip(LAWS.values(), ("-", ":"), strict=True):
                    axes.plot(grid, fit(n_S, p_S[None]).at(grid)[0], style, color=colour, lw=1.6)
                p0, x = of[order]["law"]["p0"], n_S[-1] * 2.2 * 1.25**k
                axes.plot([x, x], [p0["low"], top if p0["high"] is None else p0["high"]], color=colour, lw=1.6)
                axes.plot([x], [top if p0["fit"] is None else p0["fit"]], "_", color=colour, ms=8)
                if WITHOUT in of[order]["mrr"]:
                    axes.plot([n_S[0] / 2], [of[order]["mrr"][WITHOUT]], "o", color=colour, mfc="none", ms=6)
            none = "; hollow: none" if order == "lists" else ""
            words = f"parameters of the backbone{none}; at the right: P0 with its interval"
            axes.set(xscale="log", ylim=(0, top), xlabel=words, title=title)
        places[0].set_ylabel(f"MRR, {found['data']}")
        figure.legend(*places[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9.5)
        figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
        plt.close(figure)
