"""`premiere produce`: send a dataset into a running deployment, as its producers would, and account for each record."""

from collections.abc import Callable, Mapping
from typing import Final

from infra.data.datasets import Dataset
from infra.data.producer import DatasetProducer, ProduceError, ProduceRate
from infra.monitor.scrape import scrape_flow
from infra.monitor.status import processed_events
from infra.operate.produced import STANDSTILL_S, Account, account, flow_counts, lines
from infra.progress import Reporter
from infra.settings import Settings
from streaming.topics import TITLE_LAUNCHES, USER_EVENTS

MAX_IN_FLIGHT: Final = 2000  # events, if neither speed nor rate is given: enough to keep all flows busy


def produce_dataset(
    settings: Settings,
    data: Dataset,
    progress: Reporter,
    speed: float | None,
    rate: float | None,
    standstill_s: float = STANDSTILL_S,
) -> dict[str, Account]:
    """Produce all events and launches of `data`, wait until the flows have processed them, and return the accounts.

    `speed` is a multiple of the speed of the recorded events, `rate` is in events per second. With neither, the
    producer is as fast as the learner, or unlimited if the learner's metrics cannot be read. The wait at the end stops
    once no flow has committed anything for `standstill_s`. Raises ProduceError.
    """
    processed_before, counts_before = processed_events(settings), flow_counts(settings)
    learner_is_readable = scrape_flow(settings, "learn") is not None

    def in_flight() -> int:
        return producer.events - (processed_events(settings) - processed_before)

    limited = learner_is_readable and not (speed or rate)
    with (
        progress.bar(len(data)) as bar,
        DatasetProducer(
            data, settings.kafka_config(), progress=lambda now: bar(now.events, lambda: f"{now.launches:,} titles")
        ) as producer,
    ):
        producer.produce(pace=ProduceRate(speed, rate, in_flight if limited else None, MAX_IN_FLIGHT))
        sent = {USER_EVENTS: producer.events, TITLE_LAUNCHES: producer.launches}
        offsets = producer.offsets()
    return account(settings, sent, offsets, counts_before, standstill_s)


def print_accounts(accounts: Mapping[str, Account], print_line: Callable[[str], object]) -> None:
    """Print what became of the records. Raises ProduceError if no event was taken."""
    for line in lines(accounts):
        print_line(line)
    events = accounts[USER_EVENTS]
    if events.sent and not events.taken:
        raise ProduceError(f"None of the {events.sent:,} events was taken.")
