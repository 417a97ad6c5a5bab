"""Shared by tests."""

import re
from typing import Final

from tests.support.paths import ROOT

CONTRACTS: Final = (ROOT / "docs" / "contracts.md").read_text()


LOCAL_KAFKA: Final = "localhost:9092"  # as the examples name them


def _block(text: str, words: str, language: str = "python") -> str:
    """The one block of code that holds `words`."""
    found = [block for block in re.findall(rf"```{language}\n(.*?)```", text, re.S) if words in block]
    assert len(found) == 1
    return str(found[0])
