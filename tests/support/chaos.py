"""Runs the whole system on a dataset with or without an injected fault, and compares the results of two runs.

Results are keyed by user or log position, so that they do not depend on batch boundaries. Values that depend on Kafka's
append times are left out.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from features.store import offline_folder, open_store
from infra.data.datasets import Dataset
from infra.data.producer import ProduceRate
from infra.learner_settings import learner_settings, log_settings, set_threads
from infra.local.processes import log_tail
from infra.local.session import Session, run_session
from infra.local.supervisor import RestartPolicy
from infra.monitor.scrape import scrape_flow
from infra.monitor.status import read_status
from infra.settings import Settings
from model import checkpoint
from model.learner import Learner
from streaming.kafka.source import read_all
from streaming.records import SkippedRange, decode_erasure_request
from streaming.state.log_learner import LogLearner
from streaming.state.model_versions import read_versions
from streaming.stores.erasure import drop_erased
from streaming.stores.list_client import key, read
from streaming.topics import ACTIVITY, ERASURE_REQUESTS, TITLE_WITHDRAWALS
from tests.support.chaos_changes import Change, ChangingProducer
from tests.support.ports import free_base_port

STALL_TIMEOUT_S: Final = 300.0  # seconds without progress after which a run has failed
RESTART_POLICY: Final = RestartPolicy(max_restarts=1000, first_delay_s=0.1, max_delay_s=1.0)
ONLINE_FEATURES: Final = [
    f"user_activity:{name}" for name in ("event_count", "last_title", "recent_titles", "recent_ms")
]
MAX_IN_FLIGHT: Final = 400  # events, in a run without a fault

Log = Callable[[str], object]
Fault = Callable[[Session, ChangingProducer, int, Log], None]  # produces up to an event number and injects its fault


@dataclass(frozen=True)
class RunResult:
    """The final state of a run."""

    offline_rows: list[tuple[Any, ...]]  # of the offline log, without the time of the Kafka record
    online_features: dict[str, tuple[Any, ...]]  # user -> values in Feast's online store
    lists: dict[str, tuple[Any, ...]]  # user -> number of events and source offset behind the lists in Redis
    learned_events: int
    duplicate_events: int  # events that were twice in the learner log and were skipped
    checkpoint_files: dict[str, bool]  # checkpoint file -> whether it equals the file of an undisturbed learner
    list_problems: dict[str, str]  # user -> what is wrong with the content of the lists


@dataclass(frozen=True)
class ErrorCounts:
    """The errors in one kind of record."""

    expected: int  # records of the run without a fault
    lost: int
    duplicated: int
    different: int

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not (self.lost or self.duplicated or self.different)


def run_dataset(
    settings: Settings, data: Dataset, fault: Fault | None, log: Log, changes: Sequence[Change] = ()
) -> RunResult:
    """Produce the dataset into a new system, with or without a fault, until all events are learned and served."""
    with run_session(settings, RESTART_POLICY) as session:
        given = {"config": session.settings.kafka_config(), "ahead": len(data)}
        with ChangingProducer(data, changes, lambda: _learned(session), **given) as producer:
            if fault is None:
                producer.produce(
                    pace=ProduceRate(in_flight=lambda: producer.events - _learned(session), limit=MAX_IN_FLIGHT)
                )
            else:
                fault(session, producer, len(data), log)
        wait_until_settled(session, len(data), log, producer.erased_events())
        session.flows.stop()
        return _collect_result(session, data, log, changes)


def _learned(session: Session) -> int:
    session.flows.check()
    return read_status(session.settings, session.lags).learned


def wait_until_settled(session: Session, events: int, log: Log, erased: int = 0) -> None:
    """Wait until every event is learned, saved in a checkpoint and, unless erased, included in its user's lists."""
    best, since = -1, time.monotonic()
    while True:
        learned = _learned(session)
        served = sum(int(session.redis.hget(name, "events") or 0) for name in session.redis.scan_iter(key("*"), 1000))
        saved = max((checkpoint.read_manifest(url)["learned"] for url in _checkpoints(session)), default=0)
        scrapes = [scrape_flow(session.settings, flow) for flow in ("features", "titles")]
        held = [None if one is None else one.value("premiere_online_held_rows") for one in scrapes]  # after an outage
        if min(learned, served + erased, saved) >= events and held == [0, 0]:
            break
        if (now := learned + served + saved) > best:
            best, since = now, time.monotonic()
        assert time.monotonic() - since < STALL_TIMEOUT_S, (
            f"of {events} events {learned} learned, {served} served, {saved} saved. Ends of the logs:\n{_logs(session)}"
        )
        log(f"waiting: of {events:,} events {learned:,} learned, {served:,} served, {saved:,} in a checkpoint")
        time.sleep(1)
    time.sleep(3)  # longer than an epoch: all writes become durable, and duplicates appear


def _logs(session: Session) -> str:
    files = sorted((session.settings.data_dir / "logs").glob("*.log"))
    return "\n\n".join(f"{file.name}\n{log_tail(file)}" for file in files)


def _checkpoints(session: Session) -> list[str]:
    return checkpoint.list_checkpoints(session.settings.checkpoints_url())


def _collect_result(session: Session, data: Dataset, log: Log, changes: Sequence[Change]) -> RunResult:
    folder = session.settings.data_dir.resolve() / "feast"
    erased = [change.key for change in changes if change.topic == ERASURE_REQUESTS]
    # Whether compaction has removed these rows depends on when it ran.
    table = drop_erased(pq.read_table(offline_folder(folder, "user_activity")), _requests(session))
    offline_rows = [
        tuple(map(_hashable, row.values())) for row in table.drop_columns(["created", "oldest_created"]).to_pylist()
    ]
    store = open_store(session.settings.require_redis_url(), folder)
    online = store.get_online_features(ONLINE_FEATURES, [{"user_id": user} for user in data.users]).to_dict()
    values = {user: tuple(_hashable(online[name][k]) for name in sorted(online)) for k, user in enumerate(data.users)}
    online_features = {user: known for user, known in values.items() if None not in known}
    lists = {}
    for user in data.users:
        events, revision = session.redis.hmget(key(user), "events", "revision")
        if events is not None:
            lists[user] = (events, revision.split(".")[1])
    manifest = checkpoint.read_manifest(_checkpoints(session)[-1])
    log("an undisturbed learner reads the learner log of this run")
    checkpoint_files, duplicate_events = _compare_checkpoint(session, manifest)
    withdrawn = {change.key for change in changes if change.topic == TITLE_WITHDRAWALS}
    problems = _list_problems(session, data, withdrawn, erased)
    result = offline_rows, online_features, lists, manifest["learned"], duplicate_events, checkpoint_files
    return RunResult(*result, problems)


def _requests(session: Session) -> pa.Table:
    """The erasure requests: user and append time."""
    found = list(read_all(session.settings.kafka_config(), ERASURE_REQUESTS))
    users = pa.array([decode_erasure_request(message.value or b"").user for message in found], pa.string())
    appended = pa.array([message.appended * 1000 for message in found], pa.timestamp("us", "UTC"))
    return pa.table({"user_id": users, "appended": appended})


def _list_problems(session: Session, data: Dataset, withdrawn: set[str], erased: Sequence[str]) -> dict[str, str]:
    """The users whose stored lists an application must not show, and why. What an erased user saw before is unknown."""
    announced, found = read_versions(session.settings.kafka_config()), dict[str, str]()
    for number, user in enumerate(data.users):
        titles = read(session.redis, user)
        version = session.redis.hget(key(user), "version")
        seen = set() if user in erased else {data.titles[row] for row in data.title[data.user == number].tolist()}
        checks = {
            "a title twice": len(set(titles)) < len(titles),
            "a withdrawn title": bool(withdrawn & set(titles)),
            "a title that the user has seen": bool(seen & set(titles)) and session.redis.hexists(key(user), "events"),
            "an unknown version": version is not None and int(version) not in announced,
            "too short": len(titles) < min(session.settings.list_size, len(data.titles) - len(seen | withdrawn)),
        }
        if problems := [name for name, is_wrong in checks.items() if is_wrong]:
            found[user] = ", ".join(problems)
    return found


def _compare_checkpoint(session: Session, manifest: dict[str, Any]) -> tuple[dict[str, bool], int]:
    """Compare the checkpoint file by file with that of an undisturbed learner on the same log, and count duplicates."""
    set_threads(session.settings.threads)
    undisturbed = LogLearner(Learner(learner_settings(session.settings)), log_settings(session.settings))
    undisturbed.skip(msgspec.convert(manifest["skipped"], list[SkippedRange]))
    for message in read_all(session.settings.kafka_config(), ACTIVITY):
        is_due = undisturbed.feed(message)  # the checkpoint includes the check at which it was due
        if is_due and (undisturbed.batches, undisturbed.position) >= (manifest["step"], manifest["position"]):
            break
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(f"{folder}/undisturbed", undisturbed.state_dict(), {})
        checksums = checkpoint.read_manifest(f"{folder}/undisturbed")["files"]
    same = {name: checksums.get(name) == checksum for name, checksum in manifest["files"].items()}
    return same, undisturbed.duplicates


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def compare_runs(want: RunResult, got: RunResult) -> dict[str, ErrorCounts]:
    """Lost, duplicated and different records of the run `got` compared to `want`, by kind of record."""
    rows, expected = set(got.offline_rows), set(want.offline_rows)
    positions = {_log_position(row) for row in got.offline_rows}
    common = len(positions & {_log_position(row) for row in want.offline_rows})
    different_files = [name for name, same in got.checkpoint_files.items() if not same]
    missing_events = want.learned_events - got.learned_events
    return {
        "offline_rows": ErrorCounts(
            len(expected),
            len(expected) - common,
            len(got.offline_rows) - len(positions),
            common - len(rows & expected),
        ),
        "online_features": _compare_by_user(want.online_features, got.online_features),
        "lists": _compare_by_user(want.lists, got.lists),
        "list_contents": ErrorCounts(len(got.lists), 0, 0, len(got.list_problems)),
        "learned_events": ErrorCounts(want.learned_events, max(0, missing_events), max(0, -missing_events), 0),
        "checkpoint_files": ErrorCounts(len(got.checkpoint_files), 0, 0, len(different_files)),
    }


def _log_position(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Partition and offset, the last two columns."""
    return row[-2:]


def _compare_by_user(want: dict[str, Any], got: dict[str, Any]) -> ErrorCounts:
    both = want.keys() & got.keys()
    return ErrorCounts(len(want), len(want.keys() - both), len(got.keys() - both), sum(want[k] != got[k] for k in both))


def session_settings(folder: Path, **given: Any) -> Settings:
    """Settings of a system in `folder` with its own services and ports."""
    port = free_base_port(Settings(metrics_port=27_000))
    return Settings(data_dir=folder, metrics_port=port, **{"bootstrap_servers": "", "redis_url": "", **given})
