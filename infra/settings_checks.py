"""Checks of single settings that a type and bounds cannot express. Each returns the value, or raises ValueError."""

import re
from typing import Final

from streaming.stores.list_client import NAMESPACE

MAX_HORIZON: Final = 10_000  # events


def check_prefix(value: str) -> str:
    """A prefix of topics, groups and keys; empty for none."""
    if not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9_]*)?", value):
        raise ValueError("it may contain only ASCII letters, digits and _, and must not begin with _")
    if value == NAMESPACE:
        raise ValueError(f"{value} is the name in Redis of the deployment without a prefix; choose another one")
    return value


def check_title_vectors(value: str) -> str:
    """The space of launches' vectors, as NAME:WIDTH; empty for none."""
    if value and not re.fullmatch(r"[^:]{1,100}:(204[0-8]|20[0-3]\d|1\d{3}|[1-9]\d{0,2})", value):
        raise ValueError("it must be NAME:WIDTH with a width from 1 to 2048, for example clip:512")
    return value


def check_horizons(value: tuple[int, ...]) -> tuple[int, ...]:
    """The horizons of the lists, in events."""
    if value[:1] != (0,) or list(value) != sorted(set(value)) or value[-1] > MAX_HORIZON:
        raise ValueError(f"horizons must start with 0 and increase up to {MAX_HORIZON}, for example 0,3,10")
    return value
