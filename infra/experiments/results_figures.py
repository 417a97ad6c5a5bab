"""The figures of the results page, as PNG files. Each is a function of the content of a part's file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.ticker import MaxNLocator

from infra.charts import COLORS, SERIES_COLORS, figure
from infra.experiments.backbone_ranks import backbone_only
from infra.experiments.verdicts import BETTER, INCONCLUSIVE, WORSE, verdict
from model.metrics.baselines import RECENT_WINDOWS

VARIANT_STYLES: Final[dict[str, tuple[str, str]]] = {  # variant -> color and line style, the same in every figure
    "full": (COLORS["full"], "-"),
    "online": (COLORS["full"], "-"),
    backbone_only("full"): (COLORS["full"], ":"),
    backbone_only("online"): (COLORS["full"], ":"),
    "no_backbone": (SERIES_COLORS[2], "-"),
    "frozen": (SERIES_COLORS[1], "-"),
    "retrained": (SERIES_COLORS[2], "-"),
    backbone_only("retrained"): (SERIES_COLORS[2], ":"),
    "retrained, frozen counters": (SERIES_COLORS[1], "-"),
    "cooccurrence": (COLORS["cooccurrence"], "--"),
    **dict.fromkeys(RECENT_WINDOWS, (COLORS["popularity_recent"], "--")),  # a figure shows the best of them
    "popularity": (COLORS["popularity"], "--"),
}

VERDICT_COLORS: Final = {BETTER: SERIES_COLORS[2], WORSE: COLORS["full"], INCONCLUSIVE: SERIES_COLORS[5]}


def curves(
    curve: Mapping[str, Sequence[float]], labels: Mapping[str, str], vertical_lines: Sequence[int], path: Path
) -> None:
    """MRR of consecutive stretches of the scored events; `vertical_lines`: their x positions, in scored events."""
    with figure(path, (10.5, 4.4)) as (axes,):
        known = [name for name in VARIANT_STYLES if name in curve and name in labels]
        for name in known:
            color, line = VARIANT_STYLES[name]
            bold = color == COLORS["full"] and line == "-"
            axes.plot(
                curve["events"], curve[name], line, color=color, lw=2.4 if bold else 1.6, zorder=4 if bold else 3,
                label=labels[name],
            )  # fmt: skip
        for x in vertical_lines:
            axes.axvline(x, color="#bbbbbb", lw=0.8, ls=":", zorder=1)
        axes.set(xlabel="scored events", ylabel=f"MRR per {curve['events'][0]:,.0f} events")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, curve["events"][-1])
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=10)


def bars(table: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """The change in MRR by ablation, of the final lists and of the backbone-only order, with 95 % CIs over users."""
    rows = [name for name, row in table.items() if any(row["gain"]["all"][key] for key in ("mean", "low", "high"))]
    with figure(path, (12, 1.4 + 0.27 * len(rows)), columns=2) as (left, right):
        for axes, key, title in ((left, "gain", "final lists"), (right, "backbone_only_gain", "backbone only")):
            for y, name in enumerate(rows):
                gain = (table[name][key] or {}).get("all")
                if gain is None:
                    continue
                axes.barh(y, gain["mean"], 0.62, color=VERDICT_COLORS[verdict(gain)], alpha=0.75, zorder=2)
                axes.plot([gain["low"], gain["high"]], [y, y], color="#333333", lw=1.3, zorder=3)
            axes.axvline(0, color="#666666", lw=1)
            axes.set_title(f"{title}: MRR less that of the default", fontsize=11)
            axes.set_ylim(len(rows) - 0.4, -0.6)
            axes.set_yticks(range(len(rows)), rows if axes is left else [""] * len(rows), fontsize=9.5)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.3f}" if value else "0")
            axes.xaxis.set_major_locator(MaxNLocator(6))
            axes.grid(axis="y", visible=False)


def throughput(samples: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Events per second and resident memory over the events learned, by mode."""
    with figure(path, (11, 3.8), columns=2) as (left, right):
        colors = (COLORS["full"], SERIES_COLORS[2], SERIES_COLORS[1])
        for color, (mode, mode_samples) in zip(colors, samples.items(), strict=False):
            events = [sample["events"] for sample in mode_samples]
            for axes, key in ((left, "events_per_s"), (right, "resident_mib")):
                axes.plot(events, [sample[key] for sample in mode_samples], "o-", ms=4, color=color, label=mode)
        left.set(ylabel="events per second, one thread")
        right.set(ylabel="resident memory, MiB")
        for axes in (left, right):
            axes.set_xlabel("events learned")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axes.xaxis.set_major_locator(MaxNLocator(6))
            axes.set_xlim(left=0)
            axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
            axes.legend(loc="lower right")
