"""Import this module before Feast, so that Feast does not import torch.

Feast imports torch only to detect whether it is installed. That costs 180 MB of memory and two seconds of CPU in every
flow that only writes features. A program that has imported torch already keeps it.
"""

import sys

_hide_torch = "torch" not in sys.modules
if _hide_torch:
    sys.modules["torch"] = None  # type: ignore[assignment]  # importing it raises ImportError, which Feast handles

import feast  # noqa: E402, F401

if _hide_torch:
    del sys.modules["torch"]
