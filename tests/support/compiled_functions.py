"""The functions of the package `model` that numba has compiled in this process."""

import gc

from numba.core.dispatcher import Dispatcher


def compiled() -> dict[str, int]:
    """The number of compiled signatures of each function of ours."""
    found = [one for one in gc.get_objects() if isinstance(one, Dispatcher)]
    own = [one for one in found if one.py_func.__module__.startswith("model.")]
    return {f"{one.py_func.__module__}.{one.py_func.__name__}": len(one.signatures) for one in own}
