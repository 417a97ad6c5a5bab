"""docs/failures.md: each failure has a cell for each flow, and a test that exists for each flow that it reaches."""

import re
from typing import Final

from infra.local.supervisor import FLOWS
from tests.support.paths import ROOT

PAGE: Final = (ROOT / "docs" / "failures.md").read_text()
NOT_REACHED: Final = "–"


def rows(text: str) -> dict[str, list[str]]:
    """The cells of a Markdown table by its first column."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells}


def test_every_failure_has_a_test_for_each_flow_that_it_reaches() -> None:
    behavior, _, tests = PAGE.partition("## Tests")
    behaviors, names = rows(behavior), rows(tests)
    assert list(behaviors) == list(names)
    assert names["failure"] == behaviors["failure"][:4] == [f"`{flow}`" for flow in FLOWS]
    defined = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    for failure, cells in list(names.items())[1:]:
        assert all(behaviors[failure]), failure
        assert len(cells) == len(FLOWS), failure
        assert any(cell != NOT_REACHED for cell in cells), failure
        for cell, said in zip(cells, behaviors[failure], strict=False):
            assert cell == NOT_REACHED or cell.strip("`") in defined, (failure, cell)
            assert cell != NOT_REACHED or said.startswith("continues"), (failure, said)
