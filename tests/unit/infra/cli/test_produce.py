"""A dataset is produced completely, and progress is printed at intervals and at the end."""

from pathlib import Path

import pytest

from infra.cli.produce import ProgressPrinter, print_accounts, produce_dataset
from infra.data.producer import ProduceError, ProduceProgress
from infra.data.simulate import simulate
from infra.settings import Settings
from streaming.kafka.source import read_all
from streaming.topics import TITLE_LAUNCHES, USER_EVENTS

DATA = simulate(users=6, titles=15, events=80, days=30, seed=1)


def test_progress_is_printed_at_intervals_and_at_the_end() -> None:
    lines: list[str] = []
    progress = ProgressPrinter(lines.append, interval=3600)
    for events in (10, 999, 1000):
        progress(ProduceProgress(events, 1000, 7, 0))
    (line,) = lines
    assert line.startswith("1,000 of 1,000 events, 7 titles, ")
    assert line.endswith(" events/s")


def test_progress_has_remaining_time_only_if_events_remain() -> None:
    lines: list[str] = []
    progress = ProgressPrinter(lines.append, interval=0)
    for events in (0, 500, 1000):
        progress(ProduceProgress(events, 1000, 7, 0))
    assert [line.endswith(" left") for line in lines] == [False, True, False]


def test_all_events_and_launches_are_produced(new_kafka: dict[str, str], tmp_path: Path) -> None:
    settings = Settings(bootstrap_servers=new_kafka["bootstrap.servers"], data_dir=tmp_path, metrics_port=0)
    lines: list[str] = []
    accounts = produce_dataset(settings, DATA, lines.append, None, None, standstill_s=0.5)
    assert [(one.sent, one.unread, one.taken) for one in accounts.values()] == [
        (len(DATA), len(DATA), 0),
        (len(DATA.launches), len(DATA.launches), 0),
    ]
    with pytest.raises(ProduceError, match=f"None of the {len(DATA)} events was taken"):
        print_accounts(accounts, print)
    assert lines[-1].startswith(f"{len(DATA)} of {len(DATA)} events, {len(DATA.launches)} titles, ")
    assert len(list(read_all(new_kafka, USER_EVENTS))) == len(DATA)
    assert len(list(read_all(new_kafka, TITLE_LAUNCHES))) == len(DATA.launches)


def test_speed_and_rate_exclude_each_other(kafka: str, tmp_path: Path) -> None:
    settings = Settings(bootstrap_servers=kafka, data_dir=tmp_path, metrics_port=0)
    with pytest.raises(ProduceError, match="not both"):
        produce_dataset(settings, DATA, print, 2.0, 5.0)
