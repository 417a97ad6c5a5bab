"""Progress is a bar on a terminal, and lines at intervals elsewhere."""

import io

from rich.console import Console

from infra.progress import Reporter, format_duration


def test_lines_are_printed_at_intervals_and_at_the_end() -> None:
    out = io.StringIO()
    with Reporter(Console(file=out), interval_s=3600).bar(1000) as bar:
        for done in (10, 999, 1000):
            bar(done, lambda: "7 titles")
    (line,) = out.getvalue().splitlines()
    assert line.split()[:3] == ["1,000", "of", "1,000"]
    assert line.endswith("  7 titles")


def test_lines_have_prefix_speed_and_remaining_time() -> None:
    out = io.StringIO()
    progress = Reporter(Console(file=out), "[part] ", interval_s=0)
    progress.line("a [line] as it is")
    with progress.bar(30) as bar:
        for done in (10, 20, 30):
            bar(done)
    first, *shown = out.getvalue().splitlines()
    assert first == "[part] a [line] as it is"
    assert [line.split()[:4] for line in shown] == [["[part]", done, "of", "30"] for done in ("10", "20", "30")]
    assert shown[-1].endswith("/s  0:00 left")


def test_status_is_only_computed_when_it_is_shown() -> None:
    shown: list[int] = []

    def status() -> str:
        shown.append(1)
        return ""

    with Reporter(Console(file=io.StringIO()), interval_s=3600).bar(100) as bar:
        for done in range(1, 101):
            bar(done, status)
    assert shown == [1]


def test_bar_on_a_terminal_shows_the_status_and_vanishes() -> None:
    out = io.StringIO()
    progress = Reporter(Console(file=out, force_terminal=True, width=100), interval_s=0)
    with progress.bar(2) as bar:
        bar(1, lambda: "full 0.1234")
        progress.line("above the bar")
        bar(2, lambda: "full 0.2345")
    drawn = out.getvalue()
    assert "2 of 2" in drawn
    assert "full 0.2345" in drawn
    assert "above the bar\n" in drawn
    assert drawn.endswith("\x1b[1A\x1b[2K")  # the last act is to erase the line of the bar


def test_duration_is_formatted_in_minutes_or_hours() -> None:
    assert [format_duration(s) for s in (0, 59.9, 61, 3661)] == ["0:00", "0:59", "1:01", "1:01:01"]
