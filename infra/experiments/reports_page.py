"""The page docs/results/reports.md: the reports of the experiment commands, verbatim, with their figures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from infra.experiments.reports import REPORT_PARTS
from infra.experiments.results_page import Files, figure_path, runs

INTRO: Final = """\
# Reports

The output and the figures of the [experiment commands](../experiments.md). `make results` generates this page from the
available data. How to run each command, and how to read its report, is described there.
"""


def lines(files: Files, page: Path) -> Iterator[str]:
    """The page as lines of Markdown. Also draws the figures."""
    yield INTRO
    yield from runs(files)
    for name, part in REPORT_PARTS.items():
        if name in files:
            path = figure_path(page, name)
            result = files[name]["result"]
            part.draw(result, path)
            yield f"\n## {part.title}\n\n```"
            yield from part.lines(result)
            yield f"```\n\n![{part.title}]({path.name})"
