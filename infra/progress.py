"""The progress of long commands, on stderr: a bar on a terminal, else a line every few seconds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich import progress as rich_progress
from rich.console import Console
from rich.text import Text

LINE_INTERVAL_S: Final = 5.0  # between two lines, and between two changes of a bar's status

Status = Callable[[], str]  # what else to show; called only when it is shown


class Bar:
    """The progress of one loop: call it with the number that is done."""

    def __init__(
        self, bar: rich_progress.Progress, total: int, print_line: Callable[[str], None] | None, interval_s: float
    ) -> None:
        self._bar, self._print_line, self._interval_s = bar, print_line, interval_s
        self._task, self._total = bar.add_task("", total=total, status=""), total
        self._shown_at = time.monotonic()

    def __call__(self, done: int, status: Status = str) -> None:
        """`done` of the total are done."""
        self._bar.update(self._task, completed=done)
        if time.monotonic() - self._shown_at < self._interval_s and done < self._total:
            return
        self._shown_at = time.monotonic()
        if self._print_line is None:
            self._bar.update(self._task, status=status())
            return
        parts = [f"{done:>9,} of {self._total:,}", _speed_and_time(self._bar.tasks[self._task]), status()]
        self._print_line("  ".join(filter(None, parts)))


class _SpeedAndTime(rich_progress.ProgressColumn):
    def render(self, task: rich_progress.Task) -> Text:
        return Text(_speed_and_time(task))


def _speed_and_time(task: rich_progress.Task) -> str:
    if task.speed is None or task.time_remaining is None:  # too early to tell
        return ""
    return f"{task.speed:,.0f}/s  {format_duration(task.time_remaining)} left"


class Reporter:
    """Prints lines and bars to a console, by default stderr. Each line has the prefix."""

    def __init__(self, console: Console | None = None, prefix: str = "", interval_s: float = LINE_INTERVAL_S) -> None:
        self.console, self.prefix, self.interval_s = console or Console(stderr=True), prefix, interval_s

    def line(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        self.console.print(self.prefix + text, soft_wrap=True, highlight=False, markup=False)

    @contextmanager
    def bar(self, total: int) -> Iterator[Bar]:
        """A loop of `total` steps. A bar disappears at its end."""
        on_terminal = self.console.is_terminal
        columns = rich_progress.BarColumn(), "{task.completed:,.0f} of {task.total:,.0f}", _SpeedAndTime()
        with rich_progress.Progress(
            *columns, "{task.fields[status]}", console=self.console, transient=True, disable=not on_terminal
        ) as bar:
            yield Bar(bar, total, None if on_terminal else self.line, self.interval_s)


def format_duration(seconds: float) -> str:
    """m:ss, or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
