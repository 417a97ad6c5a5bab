"""The demo's screen: everything that is known is on it, it fits a small terminal, and elsewhere it is lines."""

import io

from rich.console import Console

from infra.demo.screen import LABELS, Screen, ScreenState, ScreenStep, UserPortrait, clock, draw, line
from infra.monitor.scrape import Histogram

FRESH = Histogram((0.1, 0.5, float("inf")), (50, 100, 100))
LAG = {
    "features < user-events": 12,
    "titles < title-launches": 0,
    "learn < activity": 190,
    "publish < activity": 40,
    "publish < model-versions": 0,
    "publish < titles": 0,
}
VIEW = ScreenState(
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
    freshness={"event": FRESH, "launch": Histogram()},
    version=41,
    launches=7200,
    mrr={name: {"all": 0.01 * (k + 1), "new_titles": None} for k, name in enumerate(LABELS)},
    viewer=UserPortrait("431", ["Alien", "Up"], [("Heat", True), ("A title [with brackets]", False)]),
)


def text(view: ScreenState, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(draw(view))
    return console.export_text().splitlines()


def test_all_that_matters_is_drawn() -> None:
    drawn = "\n".join(text(VIEW, 110))
    for part in (
        "ml-small-2016",
        "3,120 of 20,001",
        "2:10 left",
        "151 events/s, 187 in flight",
        "model version 41",
        "p50 100 ms, p99 492 ms",
        "features 12",
        "learn 190, publish 40",
        "viewer 431",
        "1. Heat",
        "2. A title [with brackets]",
        *LABELS.values(),
        *(f"{0.01 * (k + 1):.4f}" for k in range(len(LABELS))),
    ):
        assert part in drawn, part
    assert "SIMULATED" not in drawn


def test_a_simulated_audience_is_said_so() -> None:
    assert "SIMULATED" in text(ScreenState("simulated", True, 1, "titles", []), 80)[0]


def test_it_fits_a_terminal_of_24_lines_and_80_columns() -> None:
    drawn = text(VIEW, 80)
    assert len(drawn) <= 24
    assert max(map(len, drawn)) <= 80


def test_the_same_is_one_line() -> None:
    said = line(VIEW)
    assert "\n" not in said
    for part in (
        "live 3,120/20,001 (2:10 left)",
        "151 events/s",
        "lag 242",
        "event to Redis p50 100 ms",
        "served 0.0200",
    ):
        assert part in said, part


def test_nothing_known_yet_is_drawn_too() -> None:
    empty = ScreenState("a", False, 0, "titles", [ScreenStep("titles", 0, 0)])
    assert "none yet" in "\n".join(text(empty, 80))
    assert line(empty) == "0:00 | titles 0/0 | 0 events/s | lag 0"


def test_without_a_terminal_a_line_comes_now_and_then() -> None:
    out = io.StringIO()
    with Screen(Console(file=out, width=60), every=3600) as screen:
        screen.show(VIEW)
        screen.show(VIEW)
        screen.say("[done] and a sentence that is much longer than the width of what is no terminal at all")
    lines = out.getvalue().splitlines()
    assert [said.split(" | ")[0] for said in lines[:1]] == ["1:33"]
    assert lines[1:] == ["[done] and a sentence that is much longer than the width of what is no terminal at all"]


def test_on_a_terminal_the_picture_is_drawn_in_place() -> None:
    out = io.StringIO()
    with Screen(Console(file=out, width=80, height=30, force_terminal=True)) as screen:
        screen.show(VIEW)
    assert "ml-small-2016" in out.getvalue()
    assert "\x1b[" in out.getvalue()


def test_time_is_written_as_on_a_clock() -> None:
    assert [clock(s) for s in (0, 59.9, 61, 3661)] == ["0:00", "0:59", "1:01", "1:01:01"]
