"""Samples of the flows: rates, recent samples, and a bounded number of samples."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.data.producer import DatasetProducer
from infra.data.simulate import simulate
from infra.demo.sampler import MAX_SAMPLES, RECENT_S, SAMPLE_INTERVAL_S, Sample, Sampler
from infra.demo.served_evaluation import ServedEvaluation
from infra.monitor.lag import LagReader
from infra.monitor.scrape import Histogram
from infra.settings import Settings
from streaming.topics import TITLE_LAUNCHES
from tests.support.kafka import commit_offset

DATA = simulate(users=5, titles=12, events=60, days=30, seed=1)


class Clock:
    """Seconds since the demo began, set by the test."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Sampled:
    """A sampler with the objects that it reads."""

    def __init__(self, config: dict[str, str], folder: Path) -> None:
        self.settings = Settings(bootstrap_servers=config["bootstrap.servers"], data_dir=folder, metrics_port=0)
        self.lags, self.producer = LagReader(config), DatasetProducer(DATA, config)
        self.served, self.clock = ServedEvaluation(lambda user: []), Clock()
        self.sampler = Sampler(self.settings, self.lags, self.producer, self.served, self.clock)

    def close(self) -> None:
        self.producer.close()
        self.lags.close()


@pytest.fixture
def sampled(kafka: str, tmp_path: Path) -> Iterator[Sampled]:
    """A sampler on the shared broker, from which the test expects nothing."""
    found = Sampled({"bootstrap.servers": kafka}, tmp_path)
    yield found
    found.close()


@pytest.fixture
def sampler(sampled: Sampled) -> Sampler:
    """A sampler whose samples the test writes itself."""
    return sampled.sampler


@pytest.fixture
def sampled_topics(new_kafka: dict[str, str], tmp_path: Path) -> Iterator[Sampled]:
    """A sampler on a broker with the project's topics, which are empty."""
    found = Sampled(new_kafka, tmp_path)
    yield found
    found.close()


def sample(seconds: float, learned: int = 0, phase: str = "live") -> Sample:
    latency = {"event": Histogram(), "launch": Histogram()}
    return Sample(seconds, phase, learned, 0, 0, learned, learned, {}, latency, None, {})


def learned(one: Sample) -> int:
    return one.learned


def test_rate_is_the_increase_over_the_recent_window(sampler: Sampler) -> None:
    sampler.samples = [sample(second, 100 * second) for second in range(20)]
    sampler.samples += [sample(second, 2000 + 10 * (second - 20)) for second in range(20, 40)]
    assert sampler.recent().seconds == 39 - RECENT_S
    assert sampler.rate(learned) == pytest.approx(10)


def test_rate_starts_with_the_phase_and_is_never_negative(sampler: Sampler) -> None:
    sampler.samples = [sample(30, 5000, "backlog"), sample(31, 100), sample(33, 500)]
    assert sampler.recent() is sampler.samples[1]
    assert sampler.rate(learned) == pytest.approx(200)
    sampler.samples.append(sample(34, 90))  # the learner restarted
    assert sampler.rate(learned) == 0
    sampler.samples = [sample(30, 5000)]
    assert sampler.rate(learned) == 0


def test_sample_is_due_at_the_start_and_after_the_interval(sampled: Sampled) -> None:
    sampler = sampled.sampler
    assert sampler.due()
    sampled.clock.now = 7.0
    assert sampler.sample("titles").seconds == 7
    sampled.clock.now += 0.9 * SAMPLE_INTERVAL_S
    assert not sampler.due()
    sampled.clock.now += 0.2 * SAMPLE_INTERVAL_S
    assert sampler.due()


def test_sample_counts_produced_events_and_committed_launches(sampled_topics: Sampled) -> None:
    sampled_topics.producer.produce(until=20)
    commit_offset(sampled_topics.settings.bootstrap_servers, "titles", TITLE_LAUNCHES, 5)
    now = sampled_topics.sampler.sample("backlog")
    assert (now.phase, now.produced, now.launched, now.known, now.learned) == ("backlog", 20, len(DATA.launches), 5, 0)
    assert now.lag["titles < title-launches"] == len(DATA.launches) - 5
    assert now.lag["features < user-events"] == 20
    assert (now.version, list(now.totals)) == (None, ["served"])
    assert sampled_topics.sampler.samples == [now]


def test_every_other_sample_is_dropped_beyond_the_maximum(sampled: Sampled) -> None:
    sampler = sampled.sampler
    sampler.samples = [sample(second) for second in range(MAX_SAMPLES)]
    sampled.clock.now = float(MAX_SAMPLES)
    sampler.sample("live")
    assert [one.seconds for one in sampler.samples] == list(range(0, MAX_SAMPLES + 1, 2))
    sampled.clock.now += 1.5 * SAMPLE_INTERVAL_S
    assert not sampler.due()  # the interval has doubled
    sampled.clock.now += SAMPLE_INTERVAL_S
    assert sampler.due()
