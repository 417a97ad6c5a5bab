"""A dataset is produced completely, and progress is printed."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from infra.cli.produce import print_accounts, produce_dataset
from infra.data.producer import ProduceError
from infra.data.simulate import simulate
from infra.progress import Reporter
from infra.settings import Settings
from streaming.kafka.source import read_all
from streaming.topics import TITLE_LAUNCHES, USER_EVENTS

DATA = simulate(users=6, titles=15, events=80, days=30, seed=1)


def test_all_events_and_launches_are_produced(new_kafka: dict[str, str], tmp_path: Path) -> None:
    settings = Settings(bootstrap_servers=new_kafka["bootstrap.servers"], data_dir=tmp_path, metrics_port=0)
    out = io.StringIO()
    accounts = produce_dataset(settings, DATA, Reporter(Console(file=out)), None, None, standstill_s=0.5)
    assert [(one.sent, one.unread, one.taken) for one in accounts.values()] == [
        (len(DATA), len(DATA), 0),
        (len(DATA.launches), len(DATA.launches), 0),
    ]
    with pytest.raises(ProduceError, match=f"None of the {len(DATA)} events was taken"):
        print_accounts(accounts, print)
    last = out.getvalue().splitlines()[-1]
    assert last.split()[:3] == [str(len(DATA)), "of", str(len(DATA))]
    assert last.endswith(f"{len(DATA.launches)} titles")
    assert len(list(read_all(new_kafka, USER_EVENTS))) == len(DATA)
    assert len(list(read_all(new_kafka, TITLE_LAUNCHES))) == len(DATA.launches)


def test_speed_and_rate_exclude_each_other(kafka: str, tmp_path: Path) -> None:
    settings = Settings(bootstrap_servers=kafka, data_dir=tmp_path, metrics_port=0)
    with pytest.raises(ProduceError, match="not both"):
        produce_dataset(settings, DATA, Reporter(Console(quiet=True)), 2.0, 5.0)
