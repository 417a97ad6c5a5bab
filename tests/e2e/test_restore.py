"""A deployment that is restored from a backup continues, as the page on operations describes it.

The state was copied before the topics, so the flows read again what came between the two copies.
"""

import shutil
from collections import Counter
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
import pytest

from features.store import offline_folder
from infra.local.session import Session, run_session
from infra.operate.verify import verify
from model.checkpoint import list_checkpoints
from streaming.records import Event, Launch, Version, to_json
from streaming.state.model_versions import read_versions
from streaming.stores.list_client import key
from streaming.topics import TITLE_LAUNCHES, USER_EVENTS
from tests.support.chaos import session_settings, wait_until_settled
from tests.support.session import send_records, wait_for

TITLES: Final = 30
USERS: Final = 10
STATE: Final = ("recovery", "checkpoints", "feast", "redis", ".instance")  # of data_dir
BEFORE, BETWEEN, AFTER = 150, 40, 30  # events before the copy of the state, before that of the topics, after the loss


@pytest.mark.extended
@pytest.mark.long
def test_restored_deployment_continues_without_loss(kafka_home: Path, tmp_path: Path) -> None:
    data_dir, backup = tmp_path / "data", tmp_path / "backup"
    settings = session_settings(data_dir, kafka_home=kafka_home, broker="apache", checkpoint_seconds=1)
    with run_session(settings) as session:
        launches = (Launch(title=f"t{n}", name=f"Title {n}", overview=f"About {n % 3}.") for n in range(TITLES))
        send_records(session, *((TITLE_LAUNCHES, one.title, to_json(one)) for one in launches))
        send_events(session, 0, BEFORE)
    for name in STATE:
        copy(data_dir / name, backup / name)
    with run_session(settings) as session:
        send_events(session, BEFORE, BEFORE + BETWEEN)
    copy(data_dir / "kafka", backup / "kafka")
    shutil.rmtree(data_dir)

    shutil.copytree(backup, data_dir)
    with run_session(settings) as session:
        wait_until_settled(session, BEFORE + BETWEEN, print)
        send_events(session, BEFORE + BETWEEN, BEFORE + BETWEEN + AFTER)
        check_nothing_is_lost(session, BEFORE + BETWEEN + AFTER)
        number, version = wait_for(session, "a version", lambda: newest_version(session, BEFORE + BETWEEN + AFTER))
        assert version.learned == BEFORE + BETWEEN + AFTER
        session.flows.stop()
        for url in list_checkpoints(settings.checkpoints_url()):
            if url != version.path:
                shutil.rmtree(url)  # so that it is recomputed from the beginning of the log
        lines: list[str] = []
        verify(session.settings, number, None, None, lines.append)
    assert f"Version {number}, recomputed from the beginning of the log, is bit-identical" in lines[-1]


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def send_events(session: Session, start: int, end: int) -> None:
    """Send the events `start` to `end`, and wait until all events so far are learned, served and in a checkpoint."""
    events = (Event(user=f"u{n % USERS}", title=f"t{n % TITLES}", ts=time_of(n)) for n in range(start, end))
    send_records(session, *((USER_EVENTS, event.user, to_json(event)) for event in events))
    wait_until_settled(session, end, print)


def time_of(number: int) -> int:
    """The time of an event, ms: it identifies the event."""
    return 1_700_000_000_000 + number * 1000


def check_nothing_is_lost(session: Session, events: int) -> None:
    """Each event is behind a list and in the offline log, once."""
    served = {user: int(session.redis.hget(key(user), "events")) for user in (f"u{n}" for n in range(USERS))}
    assert served == {f"u{n}": len(range(n, events, USERS)) for n in range(USERS)}
    rows = pq.read_table(offline_folder(session.settings.data_dir / "feast", "user_activity")).to_pylist()
    assert Counter(row["event_ms"] for row in rows) == Counter(map(time_of, range(events)))


def newest_version(session: Session, events: int) -> tuple[int, Version] | None:
    """The number of the newest announced version, and the version, once it includes so many events."""
    number, version = max(read_versions(session.settings.kafka_config()).items())
    return (number, version) if version.learned >= events else None
