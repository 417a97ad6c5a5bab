"""Import this module before Feast: it keeps two costly parts of the import away.

Feast imports torch only to detect whether it is installed. That costs 180 MB of memory and two seconds of CPU in every
flow that only writes features. A program that has imported torch already keeps it.

Feast's classes have runtime type checks (`typeguard.typechecked`), for which typeguard rewrites their source at each
import. Measured: 11 s of CPU with the checks, 3 s without. The types of this project's calls are checked by mypy.
"""

import sys
from typing import Any

import typeguard

_hide_torch = "torch" not in sys.modules
if _hide_torch:
    sys.modules["torch"] = None  # type: ignore[assignment]  # importing it raises ImportError, which Feast handles


def _unchecked(target: Any = None, **_options: Any) -> Any:
    """Stands in for `typeguard.typechecked`, with and without arguments."""
    return (lambda decorated: decorated) if target is None else target


_typechecked, typeguard.typechecked = typeguard.typechecked, _unchecked
try:
    import feast  # noqa: F401
finally:
    typeguard.typechecked = _typechecked
    if _hide_torch:
        del sys.modules["torch"]
