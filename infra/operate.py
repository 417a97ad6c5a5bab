"""The commands for operators: what is undone, taken out or looked into while the loop runs."""

from collections.abc import Callable
from typing import Final

COMMANDS: Final[tuple[Callable[..., None], ...]] = ()
