"""Launches during the live part: which titles are held back, and until when."""

import numpy as np
import pytest

from infra.data.datasets import Dataset
from infra.data.simulate import simulate
from infra.demo.live_launches import with_live_launches

LIVE_START = 300


@pytest.fixture(scope="module")
def data() -> Dataset:
    found = simulate(users=20, titles=200, events=600, days=60, seed=2)
    return with_live_launches(found, LIVE_START, count=0)


def live_titles(data: Dataset) -> set[str]:
    since = data.ts[LIVE_START]
    return {launch.title for launch in data.launches if (launch.ts or 0) >= since}


def test_titles_without_an_event_in_the_backlog_launch_live(data: Dataset) -> None:
    before = len(live_titles(data))
    held = with_live_launches(data, LIVE_START, count=before + 15)
    added = live_titles(held) - live_titles(data)
    assert len(added) == 15
    backlog = {data.titles[row] for row in data.title[:LIVE_START]}
    assert not added & backlog


def test_each_title_launches_before_its_first_event(data: Dataset) -> None:
    held = with_live_launches(data, LIVE_START, count=10_000)
    first = {held.titles[row]: int(ts) for row, ts in zip(held.title[::-1], held.ts[::-1], strict=True)}
    assert all((launch.ts or 0) < first[launch.title] for launch in held.launches if launch.title in first)


def test_only_titles_with_an_event_in_the_part_are_held_back(data: Dataset) -> None:
    part = data.slice(LIVE_START)
    with_event = {part.titles[row] for row in part.title}
    assert with_event < set(part.titles)
    held = with_live_launches(part, LIVE_START // 3, count=10_000)
    before = {launch.title: launch.ts for launch in part.launches}
    moved = {launch.title for launch in held.launches if launch.ts != before[launch.title]}
    assert moved
    assert moved <= with_event


def test_launches_stay_complete_and_in_the_order_of_time(data: Dataset) -> None:
    held = with_live_launches(data, LIVE_START, count=10_000)
    assert sorted(launch.title for launch in held.launches) == sorted(launch.title for launch in data.launches)
    assert held.launched.tolist() == [launch.ts for launch in held.launches] == sorted(held.launched.tolist())
    assert len(live_titles(held)) > len(live_titles(data))


def test_same_seed_holds_back_the_same_titles(data: Dataset) -> None:
    one, other = (with_live_launches(data, LIVE_START, count=10_000, seed=3) for _ in range(2))
    assert np.array_equal(one.launched, other.launched)
    assert with_live_launches(data, len(data)) is data
