"""The documentation, for tests that execute its examples."""

import re
from typing import Final

from tests.support.paths import ROOT

CONTRACTS: Final = (ROOT / "docs" / "contracts.md").read_text()
EXAMPLE_USER: Final = "user-42"  # the user in the examples
LOCAL_KAFKA: Final = "localhost:9094"  # the address in the examples


def code_block(text: str, content: str, language: str = "python") -> str:
    """The only code block that contains `content`."""
    found = [block for block in re.findall(rf"```{language}\n(.*?)```", text, re.S) if content in block]
    assert len(found) == 1
    return str(found[0])
