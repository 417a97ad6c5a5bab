"""Accounts for the records that a command produced: taken, duplicates, dead letters by kind, and unread ones.

A record has been processed once its flow has committed a later offset; the dead letter of an invalid record is durable
before that. So the counts do not need the flows' metrics, and other producers do not disturb them. Two numbers are only
in the metrics: dropped duplicates, and invalid records beyond the limit of dead letters per minute.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from infra.data.offset_ranges import OffsetRanges
from infra.monitor.lag import LagReader, PartitionLag
from infra.monitor.scrape import scrape_flow
from infra.operate.dead_letters import read_letters
from infra.settings import Settings
from streaming.topics import TITLE_LAUNCHES, USER_EVENTS

READERS: Final = {USER_EVENTS: "features", TITLE_LAUNCHES: "titles"}  # topic -> the flow, and group, that reads it
NOUNS: Final = {USER_EVENTS: "events", TITLE_LAUNCHES: "titles"}
STANDSTILL_S: Final = 60.0  # how long a flow may commit nothing before the wait ends
POLL_S: Final = 0.5

Offsets = Mapping[str, Mapping[int, OffsetRanges]]  # topic -> partition -> offsets of the produced records


class FlowCounts(NamedTuple):
    """What only a flow's metrics tell."""

    duplicates: int
    dropped: int  # invalid records without a dead letter


@dataclass
class Account:
    """The produced records of one topic by outcome."""

    sent: int
    unread: int = 0  # the flow has not processed them yet
    dead_letters: Counter[str] = field(default_factory=Counter)  # by kind
    counts: FlowCounts | None = None  # during the run; None: the flow's metrics did not answer

    @property
    def taken(self) -> int:
        """Records that the flow accepted."""
        duplicates, dropped = self.counts or (0, 0)
        return max(0, self.sent - self.unread - self.dead_letters.total() - duplicates - dropped)


def flow_counts(settings: Settings) -> dict[str, FlowCounts | None]:
    """The counts of each flow since it started; None if its metrics do not answer."""
    found: dict[str, FlowCounts | None] = {}
    for topic, flow in READERS.items():
        scrape = scrape_flow(settings, flow)
        names = ("premiere_duplicates_total", "premiere_dead_letters_dropped_total")
        found[topic] = None if scrape is None else FlowCounts(*(int(scrape.value(name)) for name in names))
    return found


def account(
    settings: Settings,
    sent: Mapping[str, int],
    offsets: Offsets,
    before: Mapping[str, FlowCounts | None],
    standstill_s: float = STANDSTILL_S,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Account]:
    """Wait until the flows have processed the records at `offsets`, and return an account for each topic.

    The wait ends if no flow commits for `standstill_s`. `before` is `flow_counts` before the first record was sent.
    """
    unread = _wait(settings, offsets, standstill_s, clock)
    letters = _letters(settings, offsets)
    after = flow_counts(settings)
    return {
        topic: Account(sent[topic], unread[topic], letters[topic], _difference(before[topic], after[topic]))
        for topic in offsets
    }


def _wait(settings: Settings, offsets: Offsets, standstill_s: float, clock: Callable[[], float]) -> dict[str, int]:
    """The records that are still unread in the end, by topic."""
    most, moved = -1, clock()
    with LagReader(settings.kafka_config()) as lags:
        while True:
            rows = lags.read({READERS[topic]: (topic,) for topic in offsets})
            unread = {topic: _unread(rows, topic, offsets[topic]) for topic in offsets}
            committed = sum(row.committed_offset or 0 for row in rows)
            if committed > most:
                most, moved = committed, clock()
            if not any(unread.values()) or clock() - moved > standstill_s:
                return unread
            time.sleep(POLL_S)


def _unread(rows: list[PartitionLag], topic: str, offsets: Mapping[int, OffsetRanges]) -> int:
    committed = {row.partition: row.committed_offset or 0 for row in rows if row.topic == topic}
    return sum(ranges.count_from(committed.get(partition, 0)) for partition, ranges in offsets.items())


def _letters(settings: Settings, offsets: Offsets) -> dict[str, Counter[str]]:
    """The dead letters of the records by topic and kind."""
    found: dict[str, Counter[str]] = {topic: Counter() for topic in offsets}
    for _, letter, is_duplicate in read_letters(settings.kafka_config()):
        if letter is None or is_duplicate:
            continue
        ranges = offsets.get(letter.source_topic, {}).get(letter.source_partition)
        if ranges is not None and letter.source_offset in ranges:
            found[letter.source_topic][letter.reason_type] += 1
    return found


def _difference(before: FlowCounts | None, after: FlowCounts | None) -> FlowCounts | None:
    """The counts in between; those since the start of a flow that restarted."""
    if before is None or after is None:
        return None
    return FlowCounts(*(now - then if now >= then else now for now, then in zip(after, before, strict=True)))


def lines(accounts: Mapping[str, Account]) -> list[str]:
    """The accounts as text."""
    found = []
    for topic, one in accounts.items():
        noun, flow, parts = NOUNS[topic], READERS[topic], [f"{one.taken:,} of {one.sent:,} {NOUNS[topic]} taken"]
        if one.counts is not None and topic == USER_EVENTS:
            parts.append(f"{one.counts.duplicates:,} duplicates")
        letters = ", ".join(f"{count:,} {kind}" for kind, count in one.dead_letters.most_common())
        found.append(f"{', '.join(parts)}, dead letters: {letters or 'none'}.")
        if one.counts is None:
            unknown = "duplicates and invalid records" if topic == USER_EVENTS else "invalid records"
            found.append(f"The metrics of {flow} do not answer: {unknown} without a dead letter are counted as taken.")
        elif one.counts.dropped:
            found.append(f"{one.counts.dropped:,} invalid records got no dead letter, because there were too many.")
        if one.unread:
            found.append(
                f"{one.unread:,} {noun} are in Kafka, but {flow} has not read them: `premiere status` shows its lag."
            )
    if any(one.dead_letters for one in accounts.values()):
        found.append("`premiere dead-letters --last 5` shows the newest dead letters.")
    return found
