"""The reports page: one section per part that has a file, in the order of REPORT_PARTS, with the figure beside it."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from infra.experiments import reports_page
from infra.experiments.reports import ReportPart
from model.settings import LearnerSettings


def no_run(*_: Any) -> dict[str, Any]:
    raise AssertionError("the page must not run a part")


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"value {result['value']}"


def draw(result: Mapping[str, Any], path: Path) -> None:
    path.write_text(str(result["value"]))


def file_of(value: int) -> dict[str, Any]:
    """The content of a part's file."""
    return {
        "inputs": {"settings": asdict(LearnerSettings()), "signals": ["a"]},
        "date": "2026-01-01T00:00+00:00",
        "device": "a processor",
        "torch": "2",
        "command": "a command",
        "data": {"name": "synthetic", "events": 1000, "simulated": True},
        "result": {"value": value},
        "seconds": 90,
    }


def test_page_has_a_section_and_a_figure_for_each_part_with_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("first", "second", "third")
    parts = {name: ReportPart(f"The {name}", None, "given", no_run, lines, draw) for name in names}
    monkeypatch.setattr(reports_page, "REPORT_PARTS", parts)
    files = {"third": file_of(3), "first": file_of(1)}
    page = "\n".join(reports_page.lines(files, tmp_path / "reports.md"))
    assert page.startswith("# Reports")
    assert "| first | synthetic (simulated) | 1,000 | 2026-01-01T00:00 | 1.5 | a processor |" in page
    sections = page[page.index("## ") :]
    assert sections == (
        "## The first\n\n```\nvalue 1\n```\n\n![The first](reports-first.png)\n"
        "\n## The third\n\n```\nvalue 3\n```\n\n![The third](reports-third.png)"
    )
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "reports-first.png": "1",
        "reports-third.png": "3",
    }
