"""Launches during the demo's live part, on every dataset.

The metadata of most datasets places all launches before the first event, so nothing would launch during the demo. Some
titles without an event in the backlog are therefore held back. Each launches at a random place between the start of the
live part and its first event: if it always launched just before, its launch would announce its event.
"""

from dataclasses import replace
from typing import Final

import numpy as np
from msgspec import structs

from infra.data.datasets import Dataset

LIVE_LAUNCHES: Final = 100


def with_live_launches(data: Dataset, live_start: int, count: int = LIVE_LAUNCHES, seed: int = 0) -> Dataset:
    """The dataset with about `count` launches after the event of index `live_start`, if it has enough such titles."""
    if live_start >= len(data):
        return data
    first_event = np.full(len(data.titles), len(data))
    np.minimum.at(first_event, data.title, np.arange(len(data)))
    first = {title: int(first_event[row]) for row, title in enumerate(data.titles)}
    is_live = data.launched >= data.ts[live_start]
    firsts = [first.get(launch.title, len(data)) for launch in data.launches]
    with_event = [row for row, at in enumerate(firsts) if live_start < at < len(data) and not is_live[row]]
    random = np.random.default_rng(seed)
    missing = max(0, count - int(is_live.sum()))
    launches, launched = list(data.launches), data.launched.copy()
    for row in random.permutation(with_event)[:missing].tolist():
        before = first[launches[row].title]
        ts = min(int(data.ts[random.integers(live_start, before)]), int(data.ts[before]) - 1)
        launches[row], launched[row] = structs.replace(launches[row], ts=ts), ts
    order = np.argsort(launched, kind="stable")
    return replace(data, launches=[launches[row] for row in order.tolist()], launched=launched[order])
