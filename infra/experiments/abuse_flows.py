"""Floods of records that `make abuse` sends through the real flows `features` and `titles` on a broker of its own.

Each flood is sent several times. A flow that keeps something of each record grows by as much each time. Its buffers are
full after half of the times, so the growth of its memory from then on shows whether it is bounded. Buffers may still
reach a new peak when the machine is busy, and the allocator keeps those pages. So the growth is the median growth of a
time. After the floods an honest event and an honest launch must still reach the learner log.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from infra.data.producer import Delivery
from infra.local.services import start_services
from infra.local.supervisor import Supervisor
from infra.monitor.lag import FLOW_TOPICS, LagReader
from infra.monitor.scrape import Scrape, scrape_flow
from infra.progress import Reporter
from infra.settings import Settings
from streaming.kafka.dead_letters import MAX_LETTERS_PER_MINUTE
from streaming.kafka.source import read_all
from streaming.records import Activity, ErasureRequest, Event, Launch, LogRecord, Title, decode_log, to_json
from streaming.topics import (
    ACTIVITY,
    DEAD_LETTERS,
    ERASURE_REQUESTS,
    TITLE_LAUNCHES,
    TITLE_WITHDRAWALS,
    USER_EVENTS,
)

FLOWS: Final = ("features", "titles")
ERASURE_FLOOD, HUGE_TEXT_FLOOD, INVALID_FLOOD = "erasure flood", "launches of huge texts", "invalid records"
FLOODS: Final = (ERASURE_FLOOD, HUGE_TEXT_FLOOD, INVALID_FLOOD)
AFTER_FLOODS: Final = "after the floods"  # whether honest records are still processed
TIMES: Final = 6  # that each flood is sent
ERASED_USERS: Final = 2_000  # unknown users, each with ERASURES requests
ERASURES: Final = 3
HUGE_TEXTS: Final = 40
TEXT_CHARS: Final = 65_536  # of one field, the most that a launch may have
TEXTS: Final = 2  # of a launch, of 4 bytes per character; more would exceed the limit of a record
INVALID: Final = MAX_LETTERS_PER_MINUTE  # of two topics: sent several times, they exceed the budget of a minute
TIMEOUT_S: Final = 120.0
SAMPLES: Final = 8  # of the flows' memory, of which the smallest counts: records in transit are no growth
SAMPLE_INTERVAL_S: Final = 0.5
_MIB: Final = 1 << 20

Records = Sequence[tuple[str, str, bytes]]  # topic, key, value


class FlowStates(NamedTuple):
    """The flows at a moment."""

    crashes: int
    resident_bytes: float  # of all flows


def floods() -> dict[str, Records]:
    """The records of each flood, by name."""
    users = [f"nobody{n}" for n in range(ERASED_USERS)] * ERASURES
    emoji = "\U0001f3ac" * TEXT_CHARS
    broken = (b"{", b"\xff", b'{"user": "invalid"}', b"[" * 10_000)
    return {
        ERASURE_FLOOD: [(ERASURE_REQUESTS, user, to_json(ErasureRequest(user=user))) for user in users],
        HUGE_TEXT_FLOOD: [
            (TITLE_LAUNCHES, f"huge{n}", to_json(_huge_launch(f"huge{n}", f"{n}{emoji}"[:TEXT_CHARS])))
            for n in range(HUGE_TEXTS)
        ],
        INVALID_FLOOD: [
            (topic, "invalid", broken[n % len(broken)])
            for n in range(INVALID // 2)
            for topic in (USER_EVENTS, TITLE_WITHDRAWALS)
        ],
    }


def _huge_launch(title: str, text: str) -> Launch:
    return Launch(title=title, overview=text, text={str(n): text for n in range(TEXTS - 1)})


def flow_attacks(folder: Path, progress: Reporter, times: int = TIMES) -> dict[str, dict[str, float]]:
    """The result of each flood by name: crashes of the flows, and the growth of their memory in the second half."""
    results: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        settings = stack.enter_context(start_services(Settings(data_dir=folder, bootstrap_servers="")))
        flows = stack.enter_context(Supervisor(settings, FLOWS))
        lags = stack.enter_context(LagReader(settings.kafka_config()))
        for name, records in floods().items():
            states = list(_flood(settings, flows, lags, records, times))
            grown = growth([state.resident_bytes for state in states[(times - 1) // 2 :]])
            results[name] = {"crashes": states[-1].crashes, "grown_mib": grown / _MIB}
            progress.line(f"flows: {name}: crashes {states[-1].crashes}, grown {grown / _MIB:.1f} MiB")
        _send(settings, _honest())
        _wait(flows, lags)
        results[AFTER_FLOODS] = {"lost": 2 - _honest_in_log(settings), "dead_letters": _letters(settings)}
        progress.line(f"flows: {AFTER_FLOODS}: {results[AFTER_FLOODS]}")
    return results


def growth(resident: Sequence[float]) -> float:
    """The growth from the first to the last value if each step were the median one."""
    steps = [after - before for before, after in pairwise(resident)]
    return median(steps) * len(steps) if steps else 0.0


def _flood(
    settings: Settings, flows: Supervisor, lags: LagReader, records: Records, times: int
) -> Iterator[FlowStates]:
    """Send the records several times; the state of the flows each time that they have read all."""
    for _ in range(times):
        _send(settings, records)
        _wait(flows, lags)
        yield FlowStates(sum(flows.restarts().values()), min(_resident_samples(settings, flows)))


def _resident_samples(settings: Settings, flows: Supervisor) -> Iterator[float]:
    for _ in range(SAMPLES):
        time.sleep(SAMPLE_INTERVAL_S)
        yield sum(scrape.value("process_resident_memory_bytes") for scrape in _scrape_all(settings, flows))


def _scrape_all(settings: Settings, flows: Supervisor) -> list[Scrape]:
    """The metrics of all flows. A flow that is starting, or too busy to answer, is asked again."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        flows.check()
        scraped = [one for flow in FLOWS if (one := scrape_flow(settings, flow))]
        if len(scraped) == len(FLOWS):
            return scraped
        time.sleep(SAMPLE_INTERVAL_S)
    raise TimeoutError(f"The flows have not reported their memory within {TIMEOUT_S:g} s.")


def _honest() -> Records:
    now = int(time.time() * 1000)
    event, launch = Event(user="honest", title="honest", ts=now), Launch(title="honest", name="honest")
    return [(USER_EVENTS, "honest", to_json(event)), (TITLE_LAUNCHES, "honest", to_json(launch))]


def _honest_in_log(settings: Settings) -> int:
    """The number of the two honest records that the learner log has."""
    log: Iterator[LogRecord] = (decode_log(m.value) for m in read_all(settings.kafka_config(), ACTIVITY) if m.value)
    return sum("honest" in _names(record) for record in log)


def _names(record: LogRecord) -> Sequence[str]:
    if isinstance(record, Activity):
        return [record.user]
    return [record.title] if isinstance(record, Title) else []


def _letters(settings: Settings) -> int:
    return len(list(read_all(settings.kafka_config(), DEAD_LETTERS)))


def _send(settings: Settings, records: Records) -> None:
    delivery = Delivery(settings.kafka_config())
    for topic, key, value in records:
        delivery.send(topic, key, value)
    delivery.flush()
    delivery.close()


def _wait(flows: Supervisor, lags: LagReader) -> None:
    """Wait until the flows have read everything."""
    groups: Mapping[str, Sequence[str]] = {flow: FLOW_TOPICS[flow] for flow in FLOWS}
    deadline = time.monotonic() + TIMEOUT_S
    while any(row.records for row in lags.read(groups)):
        flows.check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"The flows have not read the records within {TIMEOUT_S:g} s.")
        time.sleep(0.5)
