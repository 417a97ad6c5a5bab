"""The demo's screen: progress, throughput, latency, MRR beside baselines, and one user's list.

On a terminal the screen is redrawn in place. Elsewhere (CI, a file) it prints one line every few seconds. Both are
functions of a `ScreenState`.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from infra.monitor.scrape import Histogram
from infra.progress import format_duration

LABELS: Final = {
    "full": "Premiere (prequential)",
    "served": "Premiere (as served)",
    "cooccurrence": "co-occurrence, last title",
    "popularity_recent": "popularity, recent",
    "popularity": "popularity, all time",
}
SLICE_COLUMNS: Final = {"all": "all", "new_titles": "new titles", "new_users": "new users"}  # slice -> column
LINE_INTERVAL_S: Final = 5.0  # without a terminal
PORTRAIT_ROWS: Final = 5  # of a user's list


class ScreenStep(NamedTuple):
    """Progress of one phase. `eta`: seconds left, or None."""

    name: str
    done: int
    of: int
    eta: float | None = None


class UserPortrait(NamedTuple):
    """A user: recent titles, newest first, and the list stored in Redis, best first."""

    user: str
    recent_titles: Sequence[str]  # names
    listed: Sequence[tuple[str, bool]]  # name, whether it is new since the last portrait


@dataclass(frozen=True)
class ScreenState:
    """Everything that the screen shows."""

    data: str
    simulated: bool
    seconds: float  # since the demo began
    phase: str
    steps: Sequence[ScreenStep]
    rate: float = 0.0  # events learned per second, recent
    in_flight: int = 0
    lag: Mapping[str, int] = field(default_factory=dict)  # "flow < topic" -> records
    latency: Mapping[str, Histogram] = field(default_factory=dict)  # kind -> seconds, recent
    version: int | None = None
    launches: int = 0
    mrr: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)  # variant -> slice, live part so far
    portrait: UserPortrait | None = None


def draw(state: ScreenState) -> RenderableType:
    """The screen; it fits 24 lines of 80 columns."""
    head = Text.assemble(("Premiere", "bold"), f"  {state.data}  {format_duration(state.seconds)}  {state.phase}")
    if state.simulated:
        head.append("  SIMULATED USERS", "bold yellow")
    panels = Columns([_quality(state), _loop(state)], padding=(0, 1))
    parts = [head, _bars(state.steps), panels, _lag(state.lag)]
    return Group(*parts, *([_portrait(state.portrait)] if state.portrait else []))


def _bars(steps: Sequence[ScreenStep]) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    for step in steps:
        left = "" if step.eta is None else f"{format_duration(step.eta)} left"
        share = f"{step.done:,} of {step.of:,}"
        grid.add_row(step.name, ProgressBar(total=max(1, step.of), completed=step.done, width=30), share, left)
    return grid


def _quality(state: ScreenState) -> RenderableType:
    grid = Table("MRR, live part so far", box=None, pad_edge=False, header_style="bold")
    for name in SLICE_COLUMNS.values():
        grid.add_column(name, justify="right")
    for ranking, label in LABELS.items():
        means = state.mrr.get(ranking, {})
        style = "bold green" if ranking in ("full", "served") else ""
        grid.add_row(Text(label, style), *(Text(_mean(means.get(name)), style) for name in SLICE_COLUMNS))
    return grid


def _loop(state: ScreenState) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    version = "none yet" if state.version is None else str(state.version)
    grid.add_row("learned", f"{state.rate:,.0f} events/s, {state.in_flight:,} in flight")
    grid.add_row("launches", f"{state.launches:,}, model version {version}")
    for kind, histogram in state.latency.items():
        grid.add_row(f"{kind} to Redis", _spread(histogram))
    return grid


def _lag(lag: Mapping[str, int]) -> RenderableType:
    """Consumer lag of each flow, in records of all its topics."""
    flows = Counter[str]()
    for name, count in lag.items():
        flows[name.split(" < ")[0]] += count
    counts = ", ".join(f"{flow} {count:,}" for flow, count in flows.items())
    return Text.assemble(("lag, records ", "dim"), counts or "-")


def _portrait(portrait: UserPortrait) -> RenderableType:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_row(Text("recent titles, newest first", "dim"), Text("list in Redis", "dim"))
    for row in range(PORTRAIT_ROWS):
        seen = portrait.recent_titles[row] if row < len(portrait.recent_titles) else ""
        name, fresh = portrait.listed[row] if row < len(portrait.listed) else ("", False)
        grid.add_row(Text(seen), Text(f"{row + 1}. {name}", "green" if fresh else "") if name else Text(""))
    return Panel(grid, title=f"user {portrait.user}", title_align="left", padding=(0, 1))


def line(state: ScreenState) -> str:
    """The state in one line."""
    parts = [format_duration(state.seconds), state.phase]
    for step in state.steps:
        if step.name == state.phase:
            left = "" if step.eta is None else f" ({format_duration(step.eta)} left)"
            parts[1] = f"{state.phase} {step.done:,}/{step.of:,}{left}"
    parts.append(f"{state.rate:,.0f} events/s")
    parts.append(f"lag {sum(state.lag.values()):,}")
    parts += [f"{kind} to Redis {_spread(histogram)}" for kind, histogram in state.latency.items() if histogram.count]
    means = {name: state.mrr.get(name, {}).get("all") for name in LABELS}
    told = [f"{name} {mean:.4f}" for name, mean in means.items() if mean is not None]
    if told:
        parts.append(f"MRR {', '.join(told)}")
    if state.version is not None:
        parts.append(f"version {state.version}")
    return " | ".join(parts)


def results(found: Mapping[str, Any]) -> RenderableType:
    """A report as a table: metrics by variant and slice, latency, counts."""
    grid = Table("live part", box=None, pad_edge=False, header_style="bold")
    for name in (*SLICE_COLUMNS.values(), "HR@10", "NDCG@10"):
        grid.add_column(name, justify="right")
    for ranking, label in LABELS.items():
        if ranking in found["mrr"]:
            means = [found["mrr"][ranking][name] for name in SLICE_COLUMNS]
            means += [found[measure][ranking]["all"] for measure in ("hr10", "ndcg10")]
            grid.add_row(label, *map(_mean, means))
    lines = [
        f"{kind} to Redis: {', '.join(f'{name} {_span(ms / 1000)}' for name, ms in spread.items())}"
        for kind, spread in found["end_to_end_latency_ms"].items()
        if None not in spread.values()
    ]
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in found["counts"].items())
    return Group(grid, *lines, f"events: {counts}")


def _mean(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.4f}"


def _spread(histogram: Histogram) -> str:
    middle, most = histogram.quantile(0.5), histogram.quantile(0.99)
    return "-" if middle is None or most is None else f"p50 {_span(middle)}, p99 {_span(most)}"


def _span(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"


class Screen:
    """Shows states while its context lasts; the last one stays on the terminal."""

    def __init__(self, console: Console | None = None, every: float = LINE_INTERVAL_S) -> None:
        self.console = console or Console()
        self._every, self._printed_at = every, float("-inf")
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

    def show(self, state: ScreenState) -> None:
        """Redraw, or print a line if one is due."""
        if self._live:
            self._live.update(draw(state), refresh=True)
        elif time.monotonic() - self._printed_at >= self._every:
            self._printed_at = time.monotonic()
            self.print_line(line(state))

    def print_line(self, sentence: str) -> None:
        """Print a sentence that stays on the terminal."""
        self.console.print(sentence, soft_wrap=not self.console.is_terminal, highlight=False, markup=False)

    def results(self, found: Mapping[str, Any]) -> None:
        """Print a report as a table."""
        self.console.print(results(found))

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
