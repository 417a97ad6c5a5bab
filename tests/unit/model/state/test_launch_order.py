"""The order of launches follows the catalog: after any history it finds the same new titles as a new order."""

import numpy as np
import pytest

from model.new_titles import find_new_titles
from model.state.catalog import Catalog
from model.state.launch_order import MIN_CAPACITY, MINUTE_MS, LaunchOrder

D_TEXT = 16


@pytest.mark.parametrize("seed", range(4))
def test_new_titles_do_not_depend_on_how_the_catalog_came_about(seed: int) -> None:
    random, catalog, sequence = np.random.default_rng(seed), Catalog(D_TEXT), 0
    text_ME = np.eye(D_TEXT, dtype=np.float32)[:6]  # so that many are near-identical
    earlier = None
    for step in range(120):
        for title in random.integers(0, 90, random.integers(1, 4)).tolist():
            sequence += 1
            row = catalog.ensure_row(f"t{title}", sequence)
            text_E = text_ME[random.integers(0, 6)] if random.random() < 0.7 else None
            catalog.launch(
                row, text_E, (), None, None, sequence, max(0, step // 3 - int(random.integers(0, 9))) * MINUTE_MS
            )
        known = list(catalog.rows.values())
        counted, withdrawn = random.choice(known, 2).tolist()
        catalog.count_V[counted] += 0.6
        if random.random() < 0.3:
            catalog.withdraw(withdrawn)
        if random.random() < 0.1:
            catalog.evict(random.choice(known, 1))
        loaded = Catalog(D_TEXT)
        loaded.load_state_dict(catalog.state_dict())
        found = find_new_titles(catalog, earlier)
        for other in (find_new_titles(catalog), find_new_titles(loaded)):
            for name in ("competing_V", "competing_M", "minute_M", "text_M"):
                np.testing.assert_array_equal(getattr(found, name), getattr(other, name))
        earlier = found


def test_full_order_is_replaced_by_the_titles_that_are_still_new() -> None:
    catalog = Catalog(D_TEXT)
    for n in range(MIN_CAPACITY + 1):
        catalog.launch(catalog.ensure_row(f"t{n}", n), None, (), None, None, n, n * MINUTE_MS)
        if n == MIN_CAPACITY - 1:
            assert catalog.launch_order.is_full
            catalog.count_V[10:MIN_CAPACITY] = 1.0
            catalog.withdraw(3)
    rows = [row for row in range(10) if row != 3] + [MIN_CAPACITY]
    assert catalog.launch_order.entries()[0].tolist() == rows
    assert find_new_titles(catalog).competing_M.tolist() == rows[::-1]


def test_launches_of_several_partitions_are_sorted_by_their_minute() -> None:
    order, minutes = LaunchOrder(), [5, 3, 6, 3, 5]
    for n, minute in enumerate(minutes):
        order.append(n, n, minute * MINUTE_MS)
    made = LaunchOrder.of(np.arange(5), np.array(minutes) * MINUTE_MS, np.ones(5, bool))
    for one in (order, made):
        assert [array_X.tolist() for array_X in one.entries()] == [[1, 3, 0, 4, 2], [1, 3, 0, 4, 2], [3, 3, 5, 5, 6]]


def test_late_partition_keeps_the_quota_of_each_minute() -> None:
    catalog = Catalog(D_TEXT)
    for n in range(400):  # two partitions, one after the other
        catalog.launch(catalog.ensure_row(f"t{n}", n), None, (), None, None, n, n % 200 * MINUTE_MS)
    assert len(find_new_titles(catalog).competing_M) == 400
