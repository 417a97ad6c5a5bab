"""The report's curves, as SVG that stands inside the page: nothing is loaded from anywhere.

Each is a function of plain numbers. Colours are told apart by the colour-blind too, and the baselines stay grey, so
that the eye finds the model first.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import matplotlib

matplotlib.use("svg")  # no window, and no search for one

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from infra.monitor.scrape import Histogram

COLOURS: Final = {
    "full": "#d1495b",
    "served": "#edae49",
    "cooccurrence": "#6c757d",
    "popularity_recent": "#9aa1a7",
    "popularity": "#c4c9cd",
    "event": "#00798c",
    "launch": "#edae49",
}
SERIES: Final = ("#6c757d", "#edae49", "#00798c", "#d1495b", "#3b6064", "#9aa1a7")  # one after another
LOOK: Final[Any] = {  # matplotlib types each name
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "full",  # the same curves give the same bytes
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.grid": True,
    "grid.color": "#eeeeee",
    "legend.frameon": False,
}

Line = tuple[Sequence[float], Sequence[float]]  # x, y


def means(lines: Mapping[str, Line], labels: Mapping[str, str]) -> str:
    """MRR over the live events, a line a ranking."""
    with _figure() as (axes, svg):
        for name, (x, y) in lines.items():
            bold = name in ("full", "served")
            axes.plot(x, y, color=COLOURS[name], lw=2.2 if bold else 1.6, label=labels[name], zorder=3 if bold else 2)
        axes.set_xlabel("live events so far")
        axes.set_ylabel("MRR")
        axes.set_ylim(bottom=0)
        _legend(axes)
    return svg[0]


def freshness(histograms: Mapping[str, Histogram], labels: Mapping[str, str]) -> str:
    """The share of what was observed in each bucket of seconds; what lies beyond the last bound is drawn at it."""
    with _figure() as (axes, svg):
        for kind, histogram in histograms.items():
            share = [100 * share for share in histogram.shares()]
            edges = [histogram.bounds[0] / 2, *histogram.bounds[:-1], histogram.bounds[-2] * 2]
            used = [bucket for bucket, part in enumerate(share) if part]
            low, high = used[0], used[-1] + 1
            axes.stairs(share[low:high], edges[low : high + 1], fill=True, color=COLOURS[kind], alpha=0.35)
            axes.stairs(share[low:high], edges[low : high + 1], color=COLOURS[kind], lw=1.8, label=labels[kind])
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(
            lambda seconds, _: f"{seconds:g} s" if seconds >= 1 else f"{1000 * seconds:g} ms"
        )
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel("from Kafka to Redis")
        axes.set_ylabel("share, %")
        _legend(axes)
    return svg[0]


def lag(lines: Mapping[str, Line], phases: Sequence[tuple[str, float]]) -> str:
    """Messages that wait, over the seconds of the run; `phases` are named where they begin."""
    with _figure() as (axes, svg):
        for k, (name, (x, y)) in enumerate(lines.items()):
            axes.plot(x, y, lw=1.6, color=plt.get_cmap("tab10")(k), label=name)
        axes.set_yscale("symlog", linthresh=10)
        axes.set_ylim(bottom=0)
        for name, at in phases:
            axes.axvline(at, color="#bbbbbb", lw=1, ls=":")
            axes.text(at, 1.02, f" {name}", transform=axes.get_xaxis_transform(), color="#777777", fontsize=9)
        axes.set_xlabel("seconds")
        axes.set_ylabel("messages waiting")
        _legend(axes)
    return svg[0]


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=10)


@contextmanager
def _figure() -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on, and where the SVG is once they are left."""
    done: list[str] = []
    with plt.rc_context(LOOK):
        figure, axes = plt.subplots(figsize=(9.5, 3.6), layout="constrained")
        yield axes, done
        page = io.StringIO()
        figure.savefig(page, format="svg", metadata={"Date": None})
        plt.close(figure)
    svg: str = page.getvalue()
    done.append(svg[svg.index("<svg") :])  # without the XML prologue, which has no place inside a page
