"""The report: a contract for scripts, and a page that stands alone and says in words what came out."""

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from infra.demo.report import Outcome, Portrait, as_json, curves, page, summary, write
from infra.demo.sampler import Sample
from infra.demo.screen import results
from infra.monitor.metric_totals import Sums
from infra.monitor.scrape import Histogram
from model.metrics.beyond_accuracy import BeyondAccuracy
from model.metrics.ranking import MEASURES, SLICES

RANKINGS = {"full": 0.06, "served": 0.05, "cooccurrence": 0.03, "popularity_recent": 0.016, "popularity": 0.018}
BOUNDS = (0.1, 0.25, 0.5, 1.0, float("inf"))
LIVE = 1000  # events


def sums(scored: int, mean: float) -> Sums:
    return Sums(np.full((len(MEASURES), len(SLICES)), scored * mean), np.full(len(SLICES), float(scored)))


def sample(k: int, phase: str, events: int, scored: int, delays: tuple[float, ...]) -> Sample:
    return Sample(
        seconds=float(k),
        phase=phase,
        produced=events,
        launched=30 + k,
        known=30 + k,
        learned=events,
        accounted=events,
        lag={"features < user-events": max(0, 500 - 20 * k), "learn < activity": k % 7},
        freshness={"event": Histogram(BOUNDS, delays), "launch": Histogram()},
        version=k // 5,
        tally={name: sums(scored if name != "served" else scored - 500, mean) for name, mean in RANKINGS.items()},
    )


@pytest.fixture
def outcome() -> Outcome:
    """A minute: 500 events of history, then 1,000 live."""
    history = [sample(k, "history", 25 * k, 500, (0, 0, 0, 0, 0)) for k in range(21)]
    live = [
        sample(20 + k, "live", 500 + 25 * k, 500 + 25 * k, (10 * k, 15 * k, 19 * k, 20 * k, 20 * k))
        for k in range(1, 41)
    ]
    return Outcome(
        data="<two & a half>",
        simulated=False,
        seconds=61.2,
        phases={"titles": 2.0, "history": 18.0, "live": 40.0},
        settings={"seed": "0", "redis_url": "redis://:**********@h:1/0"},
        events=1500,
        produced=1500,
        learned=1497,
        duplicates=2,
        dead_lettered=1,
        samples=[*history, *live],
        mark=history[-1],
        portraits=[Portrait("<7>", 12, ["Alien <3>"], [("Heat & Dust", True), ("Up", False)])],
        behind={0: 30, 4: 60, 12: 9, 99: 1},
        shown={"coverage": 0.125, "popularity": 1234.4, "with_new": 0.25},
    )


def test_the_json_holds_what_scripts_were_promised(outcome: Outcome) -> None:
    found = json.loads(json.dumps(as_json(outcome)))
    for measure in MEASURES:
        assert set(found[measure]) == set(RANKINGS)
        assert all(set(means) == set(SLICES) for means in found[measure].values())
    assert found["counts"] == {"produced": 1500, "learned": 1497, "duplicates": 2, "dead_lettered": 1, "waiting": 0}
    assert set(found["freshness_ms"]) == {"event", "launch"}
    assert found["freshness_ms"]["event"] == {"p50": 100, "p95": 500, "p99": 900}
    assert found["freshness_ms"]["launch"] == {"p50": None, "p95": None, "p99": None}
    assert (found["simulated"], found["data"], found["seconds"]) == (False, "<two & a half>", 61.2)
    assert found["scored"] == LIVE
    assert found["served_behind_events"] == {"p50": 4, "p95": 12, "p99": 12}
    assert {measure: of["served"] for measure, of in found["shown"].items()} == outcome.shown
    assert found["settings"]["redis_url"] == "redis://:**********@h:1/0"


def test_a_terminal_gets_the_numbers_too(outcome: Outcome) -> None:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(results(as_json(outcome)))
    text = console.export_text()
    for part in (
        "0.0600",
        "event to Redis: p50 100 ms",
        "1,500 produced, 1,497 learned, 2 duplicates, 1 dead lettered",
    ):
        assert part in text, part
    assert "launch to Redis" not in text  # none was measured


def test_the_means_are_of_the_live_part_alone(outcome: Outcome) -> None:
    bad = outcome.mark._replace(tally={name: sums(500 if name != "served" else 0, 0.9) for name in RANKINGS})
    good = {
        name: Sums(mark.total + LIVE * RANKINGS[name], mark.scored + LIVE)
        for name, mark in bad.tally.items()
    }  # fmt: skip
    found = as_json(replace(outcome, mark=bad, samples=[bad, outcome.samples[-1]._replace(tally=good)]))
    assert {name: round(means["all"], 9) for name, means in found["mrr"].items()} == RANKINGS


def test_what_nobody_accounts_for_waits_and_is_said(outcome: Outcome) -> None:
    lost = replace(outcome, learned=1490)
    assert lost.counts["waiting"] == 7
    assert "7 events are unaccounted for" in summary(lost)
    assert "Every event is accounted for." in summary(outcome)


def test_a_run_that_time_ended_says_so(outcome: Outcome) -> None:
    assert "before the last 500 events" in summary(replace(outcome, events=2000))
    assert "before the last" not in summary(outcome)


def test_the_summary_names_the_best_simple_way(outcome: Outcome) -> None:
    assert "was 0.0600 (0.0500 as served from Redis); the best simple way (what follows the last title) had 0.0300" in (
        summary(outcome)
    )


def test_each_point_of_a_curve_is_the_mean_of_the_window_before_it(outcome: Outcome) -> None:
    lines = curves(outcome, window=100)
    assert set(lines) == set(RANKINGS)
    for name, (x, y) in lines.items():
        assert x == sorted(x)
        assert x[-1] == LIVE
        assert y == pytest.approx([RANKINGS[name]] * len(y))
        assert len(y) > 30


class _Links(HTMLParser):
    """Collects whatever a page would load, and checks that its tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [
            f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "data", "xlink:href")
        ]
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_is_whole(outcome: Outcome) -> None:
    text = page(outcome)
    links = _Links()
    links.feed(text)
    assert links.open == []
    assert all("=#" in link for link in links.loaded), links.loaded  # only within the page
    assert "url(http" not in text
    assert "@import" not in text
    assert not re.search(r"\$[a-z]", text)  # every place of the template was filled


def test_the_page_shows_curves_viewers_and_numbers(outcome: Outcome) -> None:
    text = page(outcome)
    assert text.count("<svg") == 3
    for part in (
        "0.0600",
        "100 ms",
        "1,497",
        "Alien &lt;3&gt;",
        "Heat &amp; Dust",
        "launched live",
        "lacked 4 or more",
        "showed 12.5% of all titles; one that was shown had 1,234 events on average, and 25% of the lists held",
        "Viewer &lt;7&gt;",
    ):
        assert part in text, part
    assert "&lt;two &amp; a half&gt;" in text
    assert "<two" not in text
    assert "simulated" not in text


def test_a_simulated_audience_is_said_so(outcome: Outcome) -> None:
    assert "The audience was simulated" in page(replace(outcome, simulated=True))


def test_a_run_without_freshness_or_scores_is_drawn_too(outcome: Outcome) -> None:
    empty = outcome.mark._replace(tally={}, freshness={"event": Histogram(), "launch": Histogram()})
    bare = replace(
        outcome, mark=empty, samples=[empty, empty], portraits=[], behind={}, shown=BeyondAccuracy().report(0)
    )
    assert "Nothing was measured." in page(bare)
    assert "No event was scored." in summary(bare)
    assert as_json(bare)["scored"] == 0


def test_both_files_are_written(outcome: Outcome, tmp_path: Path) -> None:
    files = write(outcome, tmp_path / "new")
    assert [file.name for file in files] == ["report.json", "report.html"]
    assert json.loads(files[0].read_text())["data"] == "<two & a half>"
    assert files[1].read_text().startswith("<!doctype html>")
