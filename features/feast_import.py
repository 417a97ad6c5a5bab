"""Import this before Feast, and Feast comes without torch.

Feast imports torch to see whether it is there, which nothing here needs: 180 MB of memory and two seconds of CPU for
each flow that only writes features. A program that has torch already keeps it.
"""

import sys

_absent = "torch" not in sys.modules
if _absent:
    sys.modules["torch"] = None  # type: ignore[assignment]  # importing it raises ImportError, which Feast expects

import feast  # noqa: E402, F401

if _absent:
    del sys.modules["torch"]
