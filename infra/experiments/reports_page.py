"""The page of the answers, docs/answers.md: what the studies of docs/questions.md told, word for word, with figures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from infra.experiments.reports import REPORT_PARTS
from infra.experiments.results_page import Files, figure_of, runs

INTRO: Final = """\
# Answers

What the commands of [questions to your own data](questions.md) tell, word for word, with their figures. This page is
made by `make evidence` from the data that it finds; nothing in it is written by hand. How each is asked, and what its
answer means, stands there.
"""


def lines(found: Files, page: Path) -> Iterator[str]:
    """The page; figures are drawn on the way."""
    yield INTRO
    yield from runs(found)
    for name, asked in REPORT_PARTS.items():
        if name in found:
            path = figure_of(page, name)
            asked.draw(found[name]["found"], path)
            yield f"\n## {asked.title}\n\n```"
            yield from asked.lines(found[name]["found"])
            yield f"```\n\n![{asked.title}]({path.name})"
