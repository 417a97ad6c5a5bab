"""Equal ids are one object while they are in use, and ids that are not in use are freed."""

import gc
import tracemalloc

from model.state.id_table import MIN_CAPACITY, IdTable
from streaming.state.user_history import UserEvent, UserHistory

ID_BYTES = 214


def new_id(number: int) -> str:
    return f"title-{number}-".ljust(ID_BYTES, "x")


def test_equal_ids_are_one_object_while_in_use() -> None:
    table = IdTable()
    kept = [table(new_id(number)) for number in range(3 * MIN_CAPACITY)]
    for number in range(20 * MIN_CAPACITY):
        table(f"other-{number}")
    assert all(table(new_id(number)) is one for number, one in enumerate(kept))


def test_ids_that_nothing_refers_to_are_freed() -> None:
    table = IdTable()
    kept = [table(new_id(number)) for number in range(2 * MIN_CAPACITY)]
    for number in range(50 * MIN_CAPACITY):
        table(f"other-{number}")
    assert len(table) <= 2 * len(kept) + MIN_CAPACITY
    del kept
    for number in range(10 * MIN_CAPACITY):
        table(f"more-{number}")
    assert len(table) <= 2 * MIN_CAPACITY


def test_invented_ids_that_leave_a_history_leave_the_memory() -> None:
    history = UserHistory(10)

    def add(first: int, count: int) -> None:
        for number in range(first, first + count):
            history.apply(UserEvent("u", new_id(number), number, 3, None, 0, number, number))
            history.activity("u")

    add(0, 5_000)
    tracemalloc.start()
    try:
        add(5_000, 20_000)
        gc.collect()
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert left < 4_000 * ID_BYTES  # `sys.intern` of Python 3.12 keeps all 20,000
