"""Measures what a new entry costs in the learner's bounded tables: once a table is full, each one evicts another.

A table that evicts its oldest entry must find it in constant time. A plain dict does not: it searches from its front,
past all entries that were deleted before. So each table is measured full and with room, with the same number of
entries; the ratio should be close to one plus the cost of clearing an entry.

    python -m benchmarks.bounded_state
"""

import argparse
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final

import numpy as np

from benchmarks.runner import Row, compare_times, save_results, time_variants
from model.metrics.baselines import Baselines
from model.state.admission import TitleAdmission
from model.state.stream_state import History
from model.state.untrained_events import UntrainedEvents
from model.state.user_store import UserStore
from streaming.state.deduplicator import Deduplicator

ENTRIES, QUICK_ENTRIES = 200_000, 5_000  # of a full table
NEW_ENTRIES: Final = 1_000  # per call
ROUNDS: Final = 9

AddEntry = Callable[[int], object]  # adds the n-th entry


def deduplicator(capacity: int) -> AddEntry:
    """Offsets of one partition."""
    table = Deduplicator(capacity)
    return lambda n: table.is_new(0, n)


def user_store(capacity: int) -> AddEntry:
    """Users with one event each."""
    table = UserStore(max_users=capacity)
    return lambda n: table.add(f"u{n}", n % 1000)


def admission(capacity: int) -> AddEntry:
    """Titles that wait for their launch."""
    table = TitleAdmission(capacity, min_users=3)
    return lambda n: table.admit(f"t{n}", "u")


def untrained(capacity: int) -> AddEntry:
    """Users with events that must not be trained on."""
    table, one = UntrainedEvents(capacity), np.ones(1, np.int64)
    return lambda n: table.add([History(f"u{n}", one, one, one)], [[0]])


def baselines(capacity: int) -> AddEntry:
    """Users with one seen title each."""
    table = Baselines(max_seen=capacity)
    return lambda n: table.count(f"u{n}", f"t{n % 1000}", 0)


def ordered_dict(capacity: int) -> AddEntry:
    """The plain queue of these tables."""
    table: OrderedDict[int, None] = OrderedDict()

    def add(n: int) -> None:
        table[n] = None
        if len(table) > capacity:
            table.popitem(last=False)

    return add


def plain_dict(capacity: int) -> AddEntry:
    """The same queue in a plain dict."""
    table: dict[int, None] = {}

    def add(n: int) -> None:
        table[n] = None
        if len(table) > capacity:
            del table[next(iter(table))]

    return add


TABLES: Final = (deduplicator, user_store, admission, untrained, baselines, ordered_dict, plain_dict)


def measure(make: Callable[[int], AddEntry], entries: int, rounds: int) -> list[Row]:
    """New entries per CPU second of a table with `entries` entries, with room and full."""

    def filled(capacity: int) -> Callable[[], None]:
        add, numbers = make(capacity), count()
        add_all(add, numbers, entries)
        return lambda: add_all(add, numbers, NEW_ENTRIES)

    room = entries + (rounds + 2) * NEW_ENTRIES  # so that nothing is evicted
    work = {"with room": filled(room), "full": filled(entries)}
    seconds = time_variants(work, rounds, clock=time.process_time)
    case = f"{make.__name__.replace('_', ' ')}, {entries:,}"
    return compare_times(case, seconds, "with room", "entries/CPU s", NEW_ENTRIES)


def add_all(add: AddEntry, numbers: Iterator[int], entries: int) -> None:
    """Add the next entries."""
    for _ in range(entries):
        add(next(numbers))


def main() -> None:
    """Measure and save the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ENTRIES:,} instead of {ENTRIES:,} entries")
    entries = QUICK_ENTRIES if parser.parse_args().quick else ENTRIES
    save_results("bounded_state", [row for table in TABLES for row in measure(table, entries, ROUNDS)])


if __name__ == "__main__":
    main()
