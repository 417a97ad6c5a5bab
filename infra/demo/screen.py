"""The demo's screen: where the replay is, how fast and how fresh the loop is, how well it predicts, and for whom.

On a terminal it is one picture that is drawn again and again; anywhere else (CI, a file) a line every few seconds says
the same. What is shown is a `ScreenState`; drawing is a function of it.
"""

import time
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

LABELS: Final = {
    "full": "Premiere, ranked before it learns",
    "served": "Premiere, as served from Redis",
    "cooccurrence": "what follows the last title",
    "popularity_recent": "popular lately",
    "popularity": "popular, all time",
}
SHOWN: Final = {"all": "all", "new_titles": "new titles", "new_users": "new viewers"}  # slice -> column
EVERY: Final = 5.0  # seconds between two lines where there is no terminal
ROWS: Final = 5  # of a viewer's list


class ScreenStep(NamedTuple):
    """One part of the replay. `eta` in seconds, None where it is not known."""

    name: str
    done: int
    of: int
    eta: float | None = None


class UserPortrait(NamedTuple):
    """Somebody who just acted: what they did lately, newest first, and what lies in Redis for them, best first."""

    user: str
    watched: Sequence[str]  # names
    listed: Sequence[tuple[str, bool]]  # name, whether it was not on the list at the last look


@dataclass(frozen=True)
class ScreenState:
    """What there is to see at one moment."""

    data: str
    simulated: bool
    seconds: float  # since the demo began
    phase: str
    steps: Sequence[ScreenStep]
    rate: float = 0.0  # events learned a second, lately
    in_flight: int = 0
    lag: Mapping[str, int] = field(default_factory=dict)  # "flow < topic" -> messages
    freshness: Mapping[str, Histogram] = field(default_factory=dict)  # kind -> seconds, lately
    version: int | None = None
    launches: int = 0
    mrr: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)  # ranking -> slice, live part so far
    viewer: UserPortrait | None = None


def draw(view: ScreenState) -> RenderableType:
    """The picture: 24 lines of 80 columns hold all that matters."""
    head = Text.assemble(("Premiere", "bold"), f"  {view.data}  {clock(view.seconds)}  {view.phase}")
    if view.simulated:
        head.append("  SIMULATED AUDIENCE", "bold yellow")
    panels = Columns([_quality(view), _loop(view)], padding=(0, 1))
    parts = [head, _bars(view.steps), panels, _lag(view.lag)]
    return Group(*parts, *([_viewer(view.viewer)] if view.viewer else []))


def _bars(steps: Sequence[ScreenStep]) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    for step in steps:
        left = "" if step.eta is None else f"{clock(step.eta)} left"
        share = f"{step.done:,} of {step.of:,}"
        grid.add_row(step.name, ProgressBar(total=max(1, step.of), completed=step.done, width=30), share, left)
    return grid


def _quality(view: ScreenState) -> RenderableType:
    grid = Table("MRR, live part so far", box=None, pad_edge=False, header_style="bold")
    for name in SHOWN.values():
        grid.add_column(name, justify="right")
    for ranking, label in LABELS.items():
        means = view.mrr.get(ranking, {})
        style = "bold green" if ranking in ("full", "served") else ""
        grid.add_row(Text(label, style), *(Text(_mean(means.get(name)), style) for name in SHOWN))
    return grid


def _loop(view: ScreenState) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    version = "none yet" if view.version is None else str(view.version)
    grid.add_row("learned", f"{view.rate:,.0f} events/s, {view.in_flight:,} in flight")
    grid.add_row("launches", f"{view.launches:,}, model version {version}")
    for kind, histogram in view.freshness.items():
        grid.add_row(f"{kind} to Redis", _spread(histogram))
    return grid


def _lag(lag: Mapping[str, int]) -> RenderableType:
    """Messages that wait, each topic with the flows that read it."""
    topics: dict[str, list[str]] = {}
    for name, count in lag.items():
        flow, topic = name.split(" < ")
        topics.setdefault(topic, []).append(f"{flow} {count:,}")
    said = ", ".join(f"{topic} ({', '.join(waiting)})" for topic, waiting in topics.items())
    return Text.assemble(("lag ", "dim"), said or "-")


def _viewer(viewer: UserPortrait) -> RenderableType:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_row(Text("watched, newest first", "dim"), Text("their list now", "dim"))
    for row in range(ROWS):
        seen = viewer.watched[row] if row < len(viewer.watched) else ""
        name, fresh = viewer.listed[row] if row < len(viewer.listed) else ("", False)
        grid.add_row(Text(seen), Text(f"{row + 1}. {name}", "green" if fresh else "") if name else Text(""))
    return Panel(grid, title=f"viewer {viewer.user}, just now", title_align="left", padding=(0, 1))


def line(view: ScreenState) -> str:
    """The same in one line."""
    parts = [clock(view.seconds), view.phase]
    for step in view.steps:
        if step.name == view.phase:
            left = "" if step.eta is None else f" ({clock(step.eta)} left)"
            parts[1] = f"{view.phase} {step.done:,}/{step.of:,}{left}"
    parts.append(f"{view.rate:,.0f} events/s")
    parts.append(f"lag {sum(view.lag.values()):,}")
    parts += [f"{kind} to Redis {_spread(histogram)}" for kind, histogram in view.freshness.items() if histogram.count]
    means = {name: view.mrr.get(name, {}).get("all") for name in LABELS}
    told = [f"{name} {mean:.4f}" for name, mean in means.items() if mean is not None]
    if told:
        parts.append(f"MRR {', '.join(told)}")
    if view.version is not None:
        parts.append(f"version {view.version}")
    return " | ".join(parts)


def results(found: Mapping[str, Any]) -> RenderableType:
    """A report's numbers: rankings by slice, freshness, counts."""
    grid = Table("live part", box=None, pad_edge=False, header_style="bold")
    for name in (*SHOWN.values(), "HR@10", "NDCG@10"):
        grid.add_column(name, justify="right")
    for ranking, label in LABELS.items():
        if ranking in found["mrr"]:
            means = [found["mrr"][ranking][name] for name in SHOWN]
            means += [found[measure][ranking]["all"] for measure in ("hr10", "ndcg10")]
            grid.add_row(label, *map(_mean, means))
    lines = [
        f"{kind} to Redis: {', '.join(f'{name} {_span(ms / 1000)}' for name, ms in spread.items())}"
        for kind, spread in found["freshness_ms"].items()
        if None not in spread.values()
    ]
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in found["counts"].items())
    return Group(grid, *lines, f"events: {counts}")


def clock(seconds: float) -> str:
    """m:ss, or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _mean(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.4f}"


def _spread(histogram: Histogram) -> str:
    middle, most = histogram.quantile(0.5), histogram.quantile(0.99)
    return "-" if middle is None or most is None else f"p50 {_span(middle)}, p99 {_span(most)}"


def _span(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"


class Screen:
    """Shows views while its context lasts; the last one stays."""

    def __init__(self, console: Console | None = None, every: float = EVERY) -> None:
        self.console = console or Console()
        self._every, self._told = every, float("-inf")
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

    def show(self, view: ScreenState) -> None:
        """Draw it; or say it, if the last line is old enough."""
        if self._live:
            self._live.update(draw(view), refresh=True)
        elif time.monotonic() - self._told >= self._every:
            self._told = time.monotonic()
            self.say(line(view))

    def say(self, sentence: str) -> None:
        """A sentence that stays; one line where there is no terminal."""
        self.console.print(sentence, soft_wrap=not self.console.is_terminal, highlight=False, markup=False)

    def results(self, found: Mapping[str, Any]) -> None:
        """The numbers of a report, as a table."""
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
