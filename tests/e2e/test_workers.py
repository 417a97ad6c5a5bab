"""Flows with several workers, killed and rescaled 1 -> 2 -> 1: no event is lost or duplicated.

The module has its own services, since topic names are fixed. The test of `publish` reads the output of `features`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from infra.local.services import start_services
from infra.settings import Settings
from streaming import topics as t
from streaming.kafka.source import read_all
from streaming.records import Title, TitleWithdrawal, to_json
from streaming.state.sharding import Shard
from streaming.stores.list_client import key, withdrawn_key
from tests.support.titles import titles_in
from tests.support.trained_version import DATA, version
from tests.support.workers import (
    ACTIVITY_FIELDS,
    committed_records,
    lag_records,
    learned_counts,
    numbered_events,
    offline_counts,
    online_features,
    read_activities,
    run_flow_process,
    send_in_background,
    send_records,
    single_process_run,
)

pytestmark = [pytest.mark.long, pytest.mark.extended]

EVENT_COUNT = 4000


@pytest.fixture(scope="module")
def services(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A broker and a Redis for this module; with short epochs, so that many pass before and after a kill."""
    folder = tmp_path_factory.mktemp("workers")
    with start_services(Settings(data_dir=folder, bootstrap_servers="", metrics_port=0, epoch_seconds=0.3)) as settings:
        yield settings


@pytest.fixture(scope="module")
def rescaled(services: Settings) -> Settings:
    """`features` processed all events with 1 worker, then 2 of which one was killed under load, then 1 again."""
    send_records(services, t.USER_EVENTS, numbered_events(0, 800))
    with run_flow_process(services, "features", 1) as single:
        single.wait_until("the first commits", lambda: committed_records(services, "features") == 800)
    with (
        run_flow_process(services, "features", 2) as pair,
        send_in_background(services, t.USER_EVENTS, numbered_events(800, EVENT_COUNT)),
    ):
        pair.wait_until("commits of two workers", lambda: committed_records(services, "features") >= 1000)
        assert "of features was killed by signal 9" in pair.kill(1)
        done = committed_records(services, "features")
        assert len(learned_counts(read_activities(services))) >= done < EVENT_COUNT  # killed before the end
    with run_flow_process(services, "features", 1) as single:
        single.wait_until("the remaining commits", lambda: committed_records(services, "features") == EVENT_COUNT)
    return services


def test_killed_and_rescaled_features_count_each_event_once(rescaled: Settings) -> None:
    want = single_process_run(rescaled)
    assert len(want.rows()) == EVENT_COUNT
    assert len({at[0] for at in want.rows()}) == 8  # all partitions
    assert offline_counts(rescaled) == dict.fromkeys(want.rows(), 1)
    assert learned_counts(read_activities(rescaled)) == dict.fromkeys(want.rows(), 1)
    newest = {row["user_id"]: row for row in want.online.all()}
    assert online_features(rescaled, list(newest)) == {
        user: tuple(row[field] for field in ACTIVITY_FIELDS) for user, row in newest.items()
    }
    assert lag_records(rescaled, "features") == 0


def test_killed_titles_write_each_title_once(services: Settings) -> None:
    launches = [(launch.title, to_json(launch)) for launch in DATA.launches]
    withdrawn = DATA.launches[0].title
    send_records(services, t.TITLE_LAUNCHES, launches[:20])
    with run_flow_process(services, "titles", 2) as pair:
        pair.wait_until("the first launches", lambda: committed_records(services, "titles") == 20)
        send_records(services, t.TITLE_LAUNCHES, launches[20:])
        pair.kill(0)
    with run_flow_process(services, "titles", 1) as single:
        send_records(services, t.TITLE_WITHDRAWALS, [(withdrawn, to_json(TitleWithdrawal(title=withdrawn)))])
        single.wait_until("all launches", lambda: committed_records(services, "titles") == len(launches) + 1)
    known: dict[tuple[str, int], Title] = {}
    for title in titles_in(message.value for message in read_all(services.kafka_config(), t.TITLES)):
        first = known.setdefault((title.title, title.stamp), title)
        assert first == title  # a record that is written again after the kill is equal
    assert {name for name, _ in known} == {launch.title for launch in DATA.launches}
    assert [title.title for title in known.values() if title.withdrawn] == [withdrawn]
    assert len(known) == len(launches) + 1


def test_publish_serves_all_users_with_any_worker_count(rescaled: Settings) -> None:
    services, want = rescaled, {activity.user: activity.count for activity in read_activities(rescaled)}
    assert {Shard(0, 2).owns(user) for user in want} == {True, False}
    announced = version(services, Path(services.checkpoints_url()))
    send_records(services, t.MODEL_VERSIONS, [("", to_json(announced))])
    client: Any = redis.Redis.from_url(services.require_redis_url(), decode_responses=True)

    def served() -> bool:
        """Whether each user's list includes all of the user's events, and the group has no lag."""
        event_counts = {user: int(client.hget(key(user), "events") or 0) for user in want}
        return event_counts == want and lag_records(services, "publish") == 0

    for workers in (2, 1):
        client.delete(key(None), *map(key, want))
        with run_flow_process(services, "publish", workers) as running:
            running.wait_until(f"lists of all users with {workers} workers", served)
            assert client.exists(key(None))
            if workers == 2:
                assert "of publish was killed by signal 9" in running.kill(1)
    assert client.smembers(withdrawn_key()) == {DATA.launches[0].title}
