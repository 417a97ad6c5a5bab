"""The report: documented JSON fields for scripts, and a self-contained HTML page."""

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from infra.demo.command import Options, report
from infra.demo.report import Outcome, UserReport, as_json, curves, page, summary, write
from infra.demo.sampler import Sample
from infra.demo.screen import LABELS, Screen, results
from infra.monitor.metric_totals import MetricSums
from infra.monitor.scrape import Histogram
from infra.output_files import OutputError
from model.metrics.beyond_accuracy import BeyondAccuracy
from model.metrics.ranking import RANKING_METRICS, SLICES

RANKINGS = {"full": 0.06, "served": 0.05, "cooccurrence": 0.03, "popularity_recent": 0.016, "popularity": 0.018}
BOUNDS = (0.1, 0.25, 0.5, 1.0, float("inf"))
LIVE = 1000  # events


def sums(scored: int, mean: float) -> MetricSums:
    return MetricSums(np.full((len(RANKING_METRICS), len(SLICES)), scored * mean), np.full(len(SLICES), float(scored)))


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
        latency={"event": Histogram(BOUNDS, delays), "launch": Histogram()},
        version=k // 5,
        totals={name: sums(scored if name != "served" else scored - 500, mean) for name, mean in RANKINGS.items()},
    )


@pytest.fixture
def outcome() -> Outcome:
    """One minute: a backlog of 500 events, then 1,000 live events."""
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
        settings={"list_size": "100", "new_title_slots": "5", "redis_url": "redis://:**********@h:1/0"},
        events=1500,
        produced=1500,
        learned=1497,
        duplicates=2,
        dead_lettered=1,
        samples=[*history, *live],
        live_start=history[-1],
        user_reports=[UserReport("<7>", 12, ["Alien <3>"], [("Heat & Dust", True), ("Up", False)])],
        missing_events={0: 30, 4: 60, 12: 9, 99: 1},
        window=2000,
        not_waited=7,
        beyond_accuracy={"coverage": 0.125, "popularity_bias": 1234.4, "new_title_share": 0.25},
    )


def test_json_report_has_all_documented_fields(outcome: Outcome) -> None:
    found = json.loads(json.dumps(as_json(outcome)))
    for measure in RANKING_METRICS:
        assert set(found[measure]) == set(RANKINGS)
        assert all(set(means) == set(SLICES) for means in found[measure].values())
    assert found["counts"] == {"produced": 1500, "learned": 1497, "duplicates": 2, "dead_lettered": 1, "waiting": 0}
    assert set(found["end_to_end_latency_ms"]) == {"event", "launch"}
    assert found["end_to_end_latency_ms"]["event"] == {"p50": 100, "p95": 500, "p99": 900}
    assert found["end_to_end_latency_ms"]["launch"] == {"p50": None, "p95": None, "p99": None}
    assert (found["simulated"], found["data"], found["seconds"]) == (False, "<two & a half>", 61.2)
    assert found["scored"] == LIVE
    assert (found["window"], found["not_waited"]) == (2000, 7)
    assert found["served_missing_events"] == {"p50": 4, "p95": 12, "p99": 12}
    assert {measure: of["served"] for measure, of in found["beyond_accuracy"].items()} == outcome.beyond_accuracy
    assert found["settings"]["redis_url"] == "redis://:**********@h:1/0"


def test_results_table_shows_metrics_latency_and_counts(outcome: Outcome) -> None:
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


def test_metrics_cover_the_live_part_only(outcome: Outcome) -> None:
    bad = outcome.live_start._replace(totals={name: sums(500 if name != "served" else 0, 0.9) for name in RANKINGS})
    good = {
        name: MetricSums(live_start.total + LIVE * RANKINGS[name], live_start.scored + LIVE)
        for name, live_start in bad.totals.items()
    }  # fmt: skip
    found = as_json(replace(outcome, live_start=bad, samples=[bad, outcome.samples[-1]._replace(totals=good)]))
    assert {name: round(means["all"], 9) for name, means in found["mrr"].items()} == RANKINGS


def test_unaccounted_events_are_reported_as_waiting(outcome: Outcome) -> None:
    lost = replace(outcome, learned=1490)
    assert lost.counts["waiting"] == 7
    assert "7 events are not accounted for" in summary(lost)
    assert "Every event is accounted for." in summary(outcome)


def test_run_ended_by_the_time_limit_is_reported(outcome: Outcome) -> None:
    assert "before the last 500 events" in summary(replace(outcome, events=2000))
    assert "before the last" not in summary(outcome)


def test_summary_names_the_best_baseline(outcome: Outcome) -> None:
    assert "was 0.0600 prequential and 0.0500 (83% of that) as served." in summary(outcome)
    assert f"The best baseline ({LABELS['cooccurrence']}) reached 0.0300 (50% of that)." in summary(outcome)


def test_curve_point_is_the_mean_of_the_window_before_it(outcome: Outcome) -> None:
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


def test_page_loads_nothing_and_its_tags_nest(outcome: Outcome) -> None:
    text = page(outcome)
    links = _Links()
    links.feed(text)
    assert links.open == []
    assert all("=#" in link for link in links.loaded), links.loaded  # only within the page
    assert "url(http" not in text
    assert "@import" not in text
    assert not re.search(r"\{\{|\{%", text)  # the template was rendered


def test_page_shows_curves_users_and_metrics(outcome: Outcome) -> None:
    text = " ".join(page(outcome).split())
    assert text.count("<svg") == 3
    for part in (
        "0.0600",
        "100 ms",
        "1,497",
        "Alien &lt;3&gt;",
        "Heat &amp; Dust",
        "launched live",
        "7 of 1,000 events were sent without it",
        "A list has 100 places, 5 of them reserved for new titles",
        "covered 12.5% of all titles; a listed title had 1,234 events on average, and 25% of the lists contained",
        "User &lt;7&gt;",
    ):
        assert part in text, part
    assert "&lt;two &amp; a half&gt;" in text
    assert "<two" not in text
    assert "simulated" not in text


def test_simulated_users_are_reported(outcome: Outcome) -> None:
    assert "Users are simulated" in page(replace(outcome, simulated=True))


def test_run_without_latency_or_scores_is_drawn(outcome: Outcome) -> None:
    empty = outcome.live_start._replace(totals={}, latency={"event": Histogram(), "launch": Histogram()})
    bare = replace(
        outcome,
        live_start=empty,
        samples=[empty, empty],
        user_reports=[],
        missing_events={},
        beyond_accuracy=BeyondAccuracy().report(0),
    )
    assert "No latency was measured." in page(bare)
    assert "No event was scored." in summary(bare)
    assert as_json(bare)["scored"] == 0


def test_both_report_files_are_written(outcome: Outcome, tmp_path: Path) -> None:
    files = write(outcome, tmp_path / "new")
    assert [file.name for file in files] == ["report.json", "report.html"]
    assert json.loads(files[0].read_text())["data"] == "<two & a half>"
    assert files[1].read_text().startswith("<!doctype html>")


def test_results_are_printed_before_a_file_fails(outcome: Outcome, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    console = Console(file=io.StringIO(), width=200)
    with pytest.raises(OutputError, match=f"{tmp_path}/file/r cannot be written"):
        report(outcome, Options(report=tmp_path / "file" / "r"), Screen(console))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert summary(outcome) in printed
    assert "Written" not in printed
