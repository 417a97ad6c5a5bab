"""The whole system, small: a broker, a Redis, the four flows as processes, and a dataset that is produced into them.

All tests here share one stack, because it takes seconds to start. Every wait is bounded; on failure it reports the last
lines of the flows' log files.
"""

import io
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from infra.cli.produce import print_accounts, produce_dataset
from infra.data.datasets import Dataset
from infra.data.producer import ProduceError
from infra.data.simulate import simulate
from infra.demo.command import dead_events, outcome
from infra.demo.report import Outcome, as_json
from infra.demo.runner import DemoRunner, Pacing
from infra.local.session import Session, run_session
from infra.local.supervisor import FLOWS
from infra.monitor.status import processed_events
from infra.operate.produced import Account, FlowCounts
from infra.progress import Reporter
from infra.settings import Settings
from model.metrics.ranking import RANKING_METRICS, SLICES
from streaming.kafka.source import read_all
from streaming.records import Event, Launch, to_json
from streaming.stores.list_client import key, read
from streaming.topics import DEAD_LETTERS, TITLE_LAUNCHES, USER_EVENTS
from tests.support.feast_client import feast_client
from tests.support.paths import ROOT
from tests.support.ports import free_base_port
from tests.support.session import TIMEOUT_S, send_records, wait_for

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def data() -> Dataset:
    return simulate(users=50, titles=150, events=1500, days=60, seed=3)


@pytest.fixture(scope="module")
def loop(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """All flows, on a broker of their own."""
    folder = tmp_path_factory.mktemp("loop")
    port = free_base_port(Settings(metrics_port=25_000))
    with run_session(Settings(data_dir=folder, bootstrap_servers="", redis_url="", metrics_port=port)) as started:
        yield started


@pytest.fixture(scope="module")
def runner(loop: Session, data: Dataset) -> DemoRunner:
    """The dataset, produced: half as a backlog, half live."""
    began = time.monotonic()
    made = DemoRunner(loop, data, Pacing(limit=500), clock=lambda: time.monotonic() - began)
    made.run()
    return made


@pytest.fixture(scope="module")
def found(runner: DemoRunner) -> Outcome:
    """The outcome of the run, before a test adds events."""
    return outcome(runner, runner.clock())


def test_every_produced_event_is_learned(found: Outcome, data: Dataset) -> None:
    want = {"produced": len(data), "learned": len(data), "duplicates": 0, "dead_lettered": 0, "waiting": 0}
    assert found.counts == want
    assert found.samples[-1].lag["features < user-events"] == 0
    assert found.samples[-1].lag["titles < title-launches"] == 0


def test_all_variants_are_scored_on_the_live_part(found: Outcome, data: Dataset) -> None:
    report = as_json(found)
    live = len(data) - len(data) // 2
    assert report["live_events"] == live
    assert live / 4 < report["scored"] <= live  # beyond 200 events/s a fair sample; nobody repeats a title
    for measure in RANKING_METRICS:
        assert set(report[measure]) == {"full", "served", "popularity", "popularity_recent", "cooccurrence"}
        assert all(set(means) == set(SLICES) for means in report[measure].values())
    assert all(means["all"] > 0 for means in report["mrr"].values())
    assert report["end_to_end_latency_ms"]["event"]["p50"] is not None
    assert report["versions"] > 0


def test_lists_hold_launched_titles_that_the_user_has_not_seen(
    loop: Session, runner: DemoRunner, data: Dataset
) -> None:
    launched = {launch.title for launch in data.launches}
    for user in data.users:
        listed = wait_for(loop, f"a list of {user}", lambda user=user: read(loop.redis, user))  # type: ignore[misc]
        assert loop.redis.exists(key(user)), user
        seen = {data.titles[row] for row in data.title[data.user == data.users.index(user)]}
        assert set(listed) <= launched
        assert len(set(listed)) == len(listed)
        events = int(loop.redis.hget(key(user), "events"))
        assert events == (data.user == data.users.index(user)).sum()
        assert not seen & set(listed), user


def test_unknown_user_gets_the_default_list(loop: Session, runner: DemoRunner) -> None:
    assert loop.redis.exists(key(None))
    assert read(loop.redis, "nobody has seen me")


def test_feast_client_reads_online_features(loop: Session, runner: DemoRunner, data: Dataset) -> None:
    last = len(data) - 1
    user, title = data.event(last).user, data.launches[0]
    features = ["user_activity:event_count", "user_activity:last_title", "user_activity:recent_titles"]
    rows = feast_client(loop.settings).get_online_features(features, [{"user_id": user}]).to_dict()
    assert rows["last_title"] == [data.event(last).title]
    assert rows["event_count"] == [int((data.user == data.user[last]).sum())]
    assert rows["recent_titles"][0][0] == data.event(last).title
    features = ["title_semantics:name", "title_semantics:genres", "title_semantics:semantic"]
    rows = feast_client(loop.settings).get_online_features(features, [{"title_id": title.title}]).to_dict()  # type: ignore[attr-defined]
    assert rows["name"] == [title.name]
    assert len(rows["semantic"][0]) == 256


def test_historical_features_are_point_in_time_correct(loop: Session, runner: DemoRunner, data: Dataset) -> None:
    busiest = int(pd.Series(data.user).value_counts().index[0])
    own = (data.user == busiest).nonzero()[0]
    distinct = [k for k in range(1, len(own)) if data.ts[own[k]] > data.ts[own[k - 1]] + 1000][:5]
    asked = pd.DataFrame(
        {
            "user_id": data.users[busiest],
            # just before the next event of this user: what was known then
            "event_timestamp": [datetime.fromtimestamp((data.ts[own[k]] - 1) / 1000, UTC) for k in distinct],
        }
    )
    features = ["user_activity:event_count", "user_activity:last_title"]

    def known() -> list[pd.DataFrame]:
        job = feast_client(loop.settings).get_historical_features(asked, features)  # type: ignore[attr-defined]
        rows = job.to_df().sort_values("event_timestamp")
        return [] if rows["event_count"].isna().any() else [rows]

    rows = wait_for(loop, "the offline log", known)[0]
    assert rows["event_count"].astype(int).tolist() == distinct
    assert rows["last_title"].tolist() == [data.titles[data.title[own[k - 1]]] for k in distinct]


def test_invalid_event_becomes_a_dead_letter_with_its_reason(loop: Session, found: Outcome) -> None:
    before = processed_events(loop.settings)
    late = Event(user="from the future", title="title-1", ts=int(time.time() * 1000) + 10**9)
    send_records(loop, (USER_EVENTS, "bad", b"{this is not JSON"), (USER_EVENTS, late.user, to_json(late)))
    wait_for(loop, "two dead letters", lambda: dead_events(loop.settings.kafka_config()) == 2)
    assert processed_events(loop.settings) == before + 2
    letters = {message.value: dict(message.headers) for message in read_all(loop.settings.kafka_config(), DEAD_LETTERS)}
    reason = letters[b"{this is not JSON"]["reason"].decode()
    assert reason.startswith("not JSON: ")
    assert letters[b"{this is not JSON"]["topic"] == USER_EVENTS.encode()
    assert letters[to_json(late)]["reason"].decode().startswith("in the future: ")


def test_duplicate_event_is_learned_once(loop: Session, found: Outcome, data: Dataset) -> None:
    before = tour_counts(loop)
    event = Event(user=data.users[0], title="title-2", ts=int(data.ts[-1]), event_id="once")
    send_records(loop, *[(USER_EVENTS, event.user, to_json(event))] * 2)
    wait_for(loop, "an event and its double", lambda: sum(tour_counts(loop)) >= sum(before) + 2)
    assert tour_counts(loop) == (before[0] + 1, before[1] + 1)


def tour_counts(loop: Session) -> tuple[int, int]:
    """Events learned, and dropped as duplicates."""
    from infra.monitor.status import read_status

    now = read_status(loop.settings, loop.lags)
    return now.learned, now.duplicates


def test_launched_title_enters_lists(loop: Session, runner: DemoRunner, data: Dataset) -> None:
    like = data.launches[0]
    sequel = Launch(title="sequel", name=f"{like.name} II", genres=like.genres, overview=like.overview, year=2025)
    assert not any("sequel" in read(loop.redis, user) for user in data.users)
    send_records(loop, (TITLE_LAUNCHES, "sequel", to_json(sequel)))
    entered = wait_for(loop, "a list with it", lambda: [u for u in data.users if "sequel" in read(loop.redis, u)])
    assert entered
    kind = {"kind": "launch"}
    wait_for(
        loop,
        "its freshness",
        lambda: runner.sampler.sample("after") and runner.sampler.status.end_to_end_latency(**kind).count,
    )


def test_data_set_can_be_produced_into_running_flows(loop: Session, found: Outcome, data: Dataset) -> None:
    before, out = processed_events(loop.settings), io.StringIO()
    accounts = produce_dataset(loop.settings, data.slice(len(data) - 40), Reporter(Console(file=out)), None, None)
    assert accounts == {
        USER_EVENTS: Account(sent=40, counts=FlowCounts(0, 0)),
        TITLE_LAUNCHES: Account(sent=150, counts=FlowCounts(0, 0)),
    }
    assert (accounts[USER_EVENTS].taken, accounts[TITLE_LAUNCHES].taken) == (40, 150)
    wait_for(loop, "40 events more", lambda: processed_events(loop.settings) >= before + 40)
    assert out.getvalue().splitlines()[-1].endswith("150 titles")


def test_produce_accounts_for_dead_letters_by_kind(loop: Session, found: Outcome, data: Dataset) -> None:
    """Also without metrics, beside the dead letters of other records."""
    part = data.slice(len(data) - 8)
    users = [*data.users[:-1], "é" * 200]  # 400 bytes
    user_N = np.array([len(users) - 1] * 5 + [0] * 3)
    broken = replace(part, users=users, user=user_N, launches=[], launched=np.array([], np.int64))
    send_records(loop, (USER_EVENTS, "bad", b"{this is not JSON"))
    blind = loop.settings.model_copy(update={"metrics_port": 0})
    events = produce_dataset(blind, broken, Reporter(), None, None)[USER_EVENTS]
    assert events == Account(sent=8, dead_letters=Counter({"out of range": 5}), counts=None)
    assert events.taken == 3
    all_broken = replace(broken, user=np.full(8, len(users) - 1))
    accounts = produce_dataset(loop.settings, all_broken, Reporter(), None, None)
    assert accounts[USER_EVENTS].taken == 0
    with pytest.raises(ProduceError, match="None of the 8 events was taken"):
        print_accounts(accounts, print)


def lives(pid: int, parent: int | None = None) -> bool:
    """Whether it runs, as a child of that parent where one is named; what has ended and waits to be collected does
    not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # gone
        return False
    return fields[0] != "Z" and parent in (None, int(fields[1]))


def children(pid: int) -> set[int]:
    """The living children of a process."""
    everyone = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return {one for one in everyone if lives(one, pid)}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_ends_a_demo_with_130_and_no_leftovers(tmp_path: Path) -> None:
    events, titles = tmp_path / "events.csv", tmp_path / "titles.csv"
    events.write_text("user,item,ts\n" + "".join(f"u{k % 7},t{k % 11},{1_700_000_000 + k}\n" for k in range(200)))
    titles.write_text("item,title\n" + "".join(f"t{k},Title {k}\n" for k in range(11)))
    command = [sys.executable, "-P", "-m", "infra.cli.main", "demo", "--events", str(events), "--titles", str(titles)]
    env = {**os.environ, "TMPDIR": str(tmp_path), "PREMIERE_METRICS_PORT": "26000", "PYTHONUNBUFFERED": "1"}
    demo = subprocess.Popen(
        [*command, "--report", str(tmp_path)],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while len(running_now := children(demo.pid)) < 2 + len(FLOWS) and time.monotonic() < deadline:
            assert demo.poll() is None, demo.communicate()[0]
            time.sleep(0.1)
        assert len(running_now) >= 2 + len(FLOWS)
        demo.send_signal(signal.SIGINT)
        said, _ = demo.communicate(timeout=TIMEOUT_S)
    finally:
        demo.kill()
    assert demo.returncode == 130, said
    assert said.endswith("Stopped.\n")
    # A flow that was only being started dies with its parent, and process 1 may be slow to collect it.
    deadline = time.monotonic() + TIMEOUT_S
    while (left := {pid for pid in running_now if lives(pid)}) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    assert not list(tmp_path.glob("premiere-demo-*"))
    assert not (tmp_path / "report.json").exists()
