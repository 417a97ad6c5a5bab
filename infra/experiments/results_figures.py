"""The figures of the evidence, as PNG beside the page. Each is a function of what a part's file holds."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes

from infra.charts import COLOURS, LOOK, SERIES

STYLES: Final[dict[str, tuple[str, str]]] = {  # colour, line: the same ranking looks the same in every figure
    "full": (COLOURS["full"], "-"),
    "online": (COLOURS["full"], "-"),
    "full alone": (COLOURS["full"], ":"),
    "online alone": (COLOURS["full"], ":"),
    "no_backbone": (SERIES[2], "-"),
    "frozen": (SERIES[1], "-"),
    "retrained": (SERIES[2], "-"),
    "retrained alone": (SERIES[2], ":"),
    "retrained, counters too": (SERIES[1], "-"),
    "cooccurrence": (COLOURS["cooccurrence"], "--"),
    "popularity_recent": (COLOURS["popularity_recent"], "--"),
    "popularity": (COLOURS["popularity"], "--"),
}


@contextmanager
def figure(path: Path, rows: int, columns: int, size: tuple[float, float]) -> Iterator[list[Axes]]:
    """Axes to draw on; the file is written once they are left."""
    import matplotlib.pyplot as plt

    with plt.rc_context(LOOK):
        made, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
        yield list(axes.flat)
        made.savefig(path, format="png", dpi=110, metadata={"Software": None})
        plt.close(made)


def curves(curve: Mapping[str, Sequence[float]], labels: Mapping[str, str], path: Path, marks: Sequence[int]) -> None:
    """MRR of each stretch of the scored events; `marks`: scored events at which something was done."""
    with figure(path, 1, 1, (10.5, 4.4)) as (axes,):
        known = [name for name in STYLES if name in curve and name in labels]
        for name in known:
            colour, line = STYLES[name]
            bold = colour == COLOURS["full"] and line == "-"
            axes.plot(
                curve["events"], curve[name], line, color=colour, lw=2.4 if bold else 1.6, zorder=4 if bold else 3,
                label=labels[name],
            )  # fmt: skip
        for at in marks:
            axes.axvline(at, color="#bbbbbb", lw=0.8, ls=":", zorder=1)
        axes.set(xlabel="scored events so far", ylabel=f"MRR of each {curve['events'][0]:,.0f} events")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, curve["events"][-1])
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=10)


def bars(table: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """What each change does to MRR, of the lists and of the backbone alone, with intervals by user."""
    rows = [name for name, row in table.items() if any(row["gain"]["all"][key] for key in ("mean", "low", "high"))]
    with figure(path, 1, 2, (12, 1.4 + 0.27 * len(rows))) as (left, right):
        for axes, key, title in ((left, "gain", "the list"), (right, "alone_gain", "the backbone's own order")):
            for place, name in enumerate(rows):
                gain = (table[name][key] or {}).get("all")
                if gain is None:
                    continue
                sure = gain["low"] > 0 or gain["high"] < 0
                colour = (SERIES[2] if gain["mean"] > 0 else COLOURS["full"]) if sure else SERIES[5]
                axes.barh(place, gain["mean"], 0.62, color=colour, alpha=0.75, zorder=2)
                axes.plot([gain["low"], gain["high"]], [place, place], color="#333333", lw=1.3, zorder=3)
            axes.axvline(0, color="#666666", lw=1)
            axes.set_title(f"{title}: MRR against the default", fontsize=11)
            axes.set_ylim(len(rows) - 0.4, -0.6)
            axes.set_yticks(range(len(rows)), rows if axes is left else [""] * len(rows), fontsize=9.5)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.3f}" if value else "0")
            axes.xaxis.set_major_locator(_few())
            axes.grid(axis="y", visible=False)


def _few() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(6)


def pace(looks: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Events a second and resident memory over the events learned."""
    with figure(path, 1, 2, (11, 3.8)) as (left, right):
        for colour, (label, seen) in zip((COLOURS["full"], SERIES[2], SERIES[1]), looks.items(), strict=False):
            events = [look["events"] for look in seen]
            left.plot(events, [look["rate"] for look in seen], "o-", ms=4, color=colour, label=label)
            right.plot(events, [look["resident"] for look in seen], "o-", ms=4, color=colour, label=label)
        left.set(ylabel="events a second, one thread")
        right.set(ylabel="resident memory, MiB")
        for axes in (left, right):
            axes.set_xlabel("events learned so far")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axes.xaxis.set_major_locator(_few())
            axes.set_xlim(left=0)
            axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
            axes.legend(loc="lower right")
