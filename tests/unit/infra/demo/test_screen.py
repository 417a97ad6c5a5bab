"""The demo's screen: its content, its size, and the lines that it prints without a terminal."""

import io
import re
from dataclasses import replace

from rich.console import Console

from infra.demo.screen import LABELS, Screen, ScreenState, ScreenStep, UserPortrait, draw, line
from infra.monitor.scrape import Histogram

FRESH = Histogram((0.1, 0.5, float("inf")), (50, 100, 100))
LAG = {
    "features < user-events": 12,
    "features < erasure-requests": 1,
    "titles < title-launches": 0,
    "titles < title-withdrawals": 0,
    "learn < activity": 190,
    "publish < activity": 40,
    "publish < model-versions": 0,
    "publish < titles": 0,
}
STATE = ScreenState(
    data="ml-small-2016",
    simulated=False,
    seconds=93,
    phase="live",
    steps=[
        ScreenStep("titles", 7031, 7031),
        ScreenStep("history", 20001, 20001),
        ScreenStep("live", 3120, 20001, 130.0),
    ],
    rate=151.2,
    in_flight=187,
    lag=LAG,
    latency={"event": FRESH, "launch": Histogram()},
    version=41,
    launches=7200,
    mrr={name: {"all": 0.01 * (k + 1), "new_titles": None} for k, name in enumerate(LABELS)},
    portrait=UserPortrait("431", ["Alien", "Up"], [("Heat", True), ("A title [with brackets]", False)]),
)


def text(view: ScreenState, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(draw(view))
    return console.export_text().splitlines()


def test_screen_shows_progress_latency_lag_and_mrr() -> None:
    drawn = "\n".join(text(STATE, 110))
    for part in (
        "ml-small-2016",
        "3,120 of 20,001",
        "2:10 left",
        "151 events/s, 187 in flight",
        "model version 41",
        "p50 100 ms, p99 492 ms",
        "features 13",
        "learn 190, publish 40",
        "user 431",
        "1. Heat",
        "2. A title [with brackets]",
        *LABELS.values(),
        *(f"{0.01 * (k + 1):.4f}" for k in range(len(LABELS))),
    ):
        assert part in drawn, part
    assert "SIMULATED" not in drawn


def test_simulated_users_are_reported() -> None:
    assert "SIMULATED" in text(ScreenState("simulated", True, 1, "titles", []), 80)[0]


def test_screen_fits_24_lines_and_80_columns() -> None:
    drawn = text(STATE, 80)
    assert len(drawn) <= 24
    assert max(map(len, drawn)) <= 80


def test_state_as_one_line() -> None:
    said = line(STATE)
    assert "\n" not in said
    for part in (
        "live 3,120/20,001 (2:10 left)",
        "151 events/s",
        "lag 243",
        "event to Redis p50 100 ms",
        "served 0.0200",
    ):
        assert part in said, part


def test_empty_state_is_drawn() -> None:
    empty = ScreenState("a", False, 0, "titles", [ScreenStep("titles", 0, 0)])
    assert "none yet" in "\n".join(text(empty, 80))
    assert line(empty) == "0:00 | titles 0/0 | 0 events/s | lag 0"


def test_without_a_terminal_lines_are_printed_at_an_interval() -> None:
    out = io.StringIO()
    with Screen(Console(file=out, width=60), every=3600) as screen:
        screen.show(STATE)
        screen.show(STATE)
        screen.print_line("[done] and a sentence that is much longer than the width of what is no terminal at all")
    lines = out.getvalue().splitlines()
    assert [said.split(" | ")[0] for said in lines[:1]] == ["1:33"]
    assert lines[1:] == ["[done] and a sentence that is much longer than the width of what is no terminal at all"]


def terminal_rows(output: str) -> list[str]:
    """The rows that a terminal shows after this output.

    Line feed, carriage return, cursor up and erase line are applied. Colors and modes are ignored. Any other control
    sequence is an error.
    """
    rows, row, column = [""], 0, 0
    for count, code, plain in re.findall(r"\x1b\[([?\d;]*)([A-Za-z])|([\r\n]|[^\x1b\r\n]+)", output):
        if plain == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif plain == "\r":
            column = 0
        elif plain:
            rows[row] = rows[row][:column].ljust(column) + plain + rows[row][column + len(plain) :]
            column += len(plain)
        elif code == "A":
            row -= int(count or 1)
        elif code == "K":
            rows[row] = ""
        else:
            assert code in "mhl", code
    return rows


def without_bars(rows: list[str]) -> list[str]:
    """The rows that are not blank, without spaces and progress bars, whose ends differ with and without color."""
    return [re.sub("[━╸╺ ]", "", row) for row in rows if row.strip()]


def test_on_a_terminal_the_screen_is_redrawn_in_place() -> None:
    out = io.StringIO()
    with Screen(Console(file=out, width=80, height=30, force_terminal=True)) as screen:
        screen.show(STATE)
        screen.show(replace(STATE, seconds=94))
    rows = [row.rstrip() for row in terminal_rows(out.getvalue())]
    assert [row.split()[2] for row in rows if "ml-small-2016" in row] == ["1:34"]
    assert without_bars(rows) == without_bars([row.replace("1:33", "1:34") for row in text(STATE, 80)])
