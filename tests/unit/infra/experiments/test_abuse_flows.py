"""The floods of the abuse experiment, and the real flows under them."""

from pathlib import Path

import pytest

from infra.experiments.abuse_flows import (
    AFTER_FLOODS,
    FLOODS,
    HUGE_TEXT_FLOOD,
    INVALID_FLOOD,
    floods,
    flow_attacks,
    growth,
)
from streaming.flows.features import parse_events
from streaming.flows.titles import parse_launches, parse_withdrawals
from streaming.kafka.source import Message
from streaming.topics import USER_EVENTS
from tests.support.evaluation import SILENT

NOW = 1_700_000_000_000  # ms


def poll(name: str) -> list[Message]:
    """The records of a flood, as a flow reads them."""
    return [
        Message(topic, 0, offset, NOW, key.encode(), value) for offset, (topic, key, value) in enumerate(floods()[name])
    ]


def test_huge_texts_are_valid_and_nearly_as_large_as_a_record_may_be() -> None:
    launches = poll(HUGE_TEXT_FLOOD)
    assert parse_launches(launches).letters == []
    assert all(500_000 < len(launch.value or b"") < 1_000_000 for launch in launches)


def test_every_record_of_the_invalid_flood_is_invalid() -> None:
    records = poll(INVALID_FLOOD)
    events = [record for record in records if record.topic == USER_EVENTS]
    withdrawals = [record for record in records if record.topic != USER_EVENTS]
    letters = len(parse_events(events).letters), len(parse_withdrawals(withdrawals).letters)
    assert letters == (len(events), len(withdrawals)) == (len(records) // 2, len(records) // 2)


def test_growth_counts_a_leak_of_each_time_in_full_and_a_single_new_peak_not_at_all() -> None:
    assert growth([100, 110, 120, 130]) == 30
    assert growth([100, 140, 140, 140]) == growth([100, 100, 100, 140]) == 0
    assert growth([100, 150, 160, 170]) == 30
    assert growth([100]) == 0


@pytest.mark.long
@pytest.mark.extended
def test_floods_stop_no_flow(tmp_path: Path) -> None:
    results = flow_attacks(tmp_path, SILENT, times=1)
    assert [results[name]["crashes"] for name in FLOODS] == [0, 0, 0]
    assert results[AFTER_FLOODS]["lost"] == 0
