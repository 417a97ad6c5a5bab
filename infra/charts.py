"""The colors and style of all figures, the helper that draws them, and the figures of the demo report as inline SVG.

Each chart is a function of plain numbers. Color-blind readers can distinguish the colors. Baselines are gray, so that
the model stands out.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("svg")  # no window

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from infra.monitor.scrape import Histogram

COLORS: Final = {
    "full": "#d1495b",
    "served": "#edae49",
    "cooccurrence": "#6c757d",
    "popularity_recent": "#9aa1a7",
    "popularity": "#c4c9cd",
    "event": "#00798c",
    "launch": "#edae49",
}
SERIES_COLORS: Final = ("#6c757d", "#edae49", "#00798c", "#d1495b", "#3b6064", "#9aa1a7")  # in this order
CHART_STYLE: Final[Any] = {  # rcParams; Any, because matplotlib types each key
    "svg.fonttype": "none",  # keep text as text
    "svg.hashsalt": "premiere",  # the same curves give the same bytes
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.grid": True,
    "grid.color": "#eeeeee",
    "legend.frameon": False,
}

LABEL_WIDTH: Final = 0.1  # of a phase's label, as a share of the axis
LABEL_HEIGHT: Final = 0.06  # the same

INLINE_SIZE: Final = (9.5, 3.6)  # inches, of a figure of the demo report
PNG_DPI: Final = 110

Line = tuple[Sequence[float], Sequence[float]]  # x, y


@contextmanager
def figure(
    to: Path | io.StringIO, size: tuple[float, float], rows: int = 1, columns: int = 1, sharey: bool = False
) -> Iterator[list[Axes]]:
    """Axes to draw on, row by row, in the common style; `size` is in inches. At the end of the block the figure is
    written, as PNG to a path and as SVG to a text buffer, and closed."""
    with plt.rc_context(CHART_STYLE):
        drawing, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, sharey=sharey)
        yield list(axes.flat)
        if isinstance(to, Path):
            drawing.savefig(to, format="png", dpi=PNG_DPI, metadata={"Software": None})
        else:
            drawing.savefig(to, format="svg", metadata={"Date": None})
        plt.close(drawing)


def inline(svg: io.StringIO) -> str:
    """An SVG without its XML prologue, to put into a page."""
    return svg.getvalue()[svg.getvalue().index("<svg") :]


def mrr_curves(lines: Mapping[str, Line], labels: Mapping[str, str]) -> str:
    """MRR over the live events, one line per variant."""
    svg = io.StringIO()
    with figure(svg, INLINE_SIZE) as (axes,):
        for name, (x, y) in lines.items():
            bold = name in ("full", "served")
            axes.plot(x, y, color=COLORS[name], lw=2.2 if bold else 1.6, label=labels[name], zorder=3 if bold else 2)
        axes.set_xlabel("live events")
        axes.set_ylabel("MRR")
        axes.set_ylim(bottom=0)
        _legend(axes)
    return inline(svg)


def latency_histogram(histograms: Mapping[str, Histogram], labels: Mapping[str, str]) -> str:
    """The share of observations by bucket of end-to-end latency. The unbounded last bucket is drawn up to twice its
    lower bound."""
    svg = io.StringIO()
    with figure(svg, INLINE_SIZE) as (axes,):
        for kind, histogram in histograms.items():
            share = [100 * share for share in histogram.bucket_fractions()]
            edges = [histogram.bounds[0] / 2, *histogram.bounds[:-1], histogram.bounds[-2] * 2]
            used = [bucket for bucket, part in enumerate(share) if part]
            low, high = used[0], used[-1] + 1
            axes.stairs(share[low:high], edges[low : high + 1], fill=True, color=COLORS[kind], alpha=0.35)
            axes.stairs(share[low:high], edges[low : high + 1], color=COLORS[kind], lw=1.8, label=labels[kind])
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(
            lambda seconds, _: f"{seconds:g} s" if seconds >= 1 else f"{1000 * seconds:g} ms"
        )
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel("end-to-end latency, from Kafka to Redis")
        axes.set_ylabel("share, %")
        _legend(axes)
    return inline(svg)


def consumer_lag(lines: Mapping[str, Line], phases: Sequence[tuple[str, float]]) -> str:
    """Unread messages by consumer group over the seconds of the run; `phases`: name and start of each."""
    svg = io.StringIO()
    with figure(svg, INLINE_SIZE) as (axes,):
        for k, (name, (x, y)) in enumerate(lines.items()):
            axes.plot(x, y, lw=1.6, color=colormaps["tab10"](k), label=name)
        axes.set_yscale("symlog", linthresh=10)
        axes.set_ylim(bottom=0)
        width, end, row = np.ptp(axes.get_xlim()), float("-inf"), 0
        for name, start in phases:
            row = 1 - row if start < end else 0  # a label above the one that it would overlap
            end = start + LABEL_WIDTH * width
            axes.axvline(start, color="#bbbbbb", lw=1, ls=":")
            height = 1.02 + LABEL_HEIGHT * row
            axes.text(start, height, f" {name}", transform=axes.get_xaxis_transform(), color="#777777", fontsize=9)
        axes.set_xlabel("seconds")
        axes.set_ylabel("consumer lag, records")
        _legend(axes)
    return inline(svg)


def legend_below(panels: Sequence[Axes], columns: int = 4) -> None:
    """One legend for these panels, below the figure."""
    entries = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if entries:
        panels[0].figure.legend(
            list(entries.values()), list(entries), loc="outside lower center", ncols=columns, fontsize=10
        )


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=10)
