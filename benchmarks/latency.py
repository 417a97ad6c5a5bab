"""Measures the latency from an event or a launch to its effect in Redis, as a client observes it, on one machine.

The system first learns a history. Then events arrive at a fixed rate, with launches in between, and a reader polls the
written keys. The reference in the same run is Kafka alone: the same record, from its producer to a plain consumer.

    python -m benchmarks.latency --rate 100 --seconds 60
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.latency_probe import LatencyProbe, last_events, paced_events, percentiles, warm_session
from benchmarks.runner import Row, make_row, save_results
from infra.data.datasets import Dataset
from infra.data.locate import locate
from infra.settings import Settings, load
from streaming.records import Launch

LAUNCH_INTERVAL_S: Final = 2.0


def measure(settings: Settings, data: Dataset, history: int, rate: float, seconds: float) -> LatencyProbe:
    """Learn `history` events, then send events at `rate` for `seconds`."""
    part = last_events(data, history + int(rate * seconds))
    with warm_session(settings, part, history) as session, LatencyProbe(session) as probe:
        began, launched = time.monotonic(), 0
        for event in paced_events(part, history, rate):
            probe.send_event(event)
            if time.monotonic() - began > LAUNCH_INTERVAL_S * (launched + 1):
                like = part.launches[-1 - launched]
                probe.send_launch(
                    Launch(title=f"new-{launched}", name=like.name, genres=like.genres, overview=like.overview)
                )
                launched += 1
        probe.finish()
        return probe


def latency_rows(case: str, kafka: list[float], event: list[float], launch: list[float]) -> list[Row]:
    """Percentiles of the latencies in ms, from latencies in seconds, with their ratios to Kafka's percentiles."""
    rows = []
    reference = percentiles(kafka)
    latencies = {"Kafka alone": kafka, "event to Redis": event, "launch to list": launch}
    for name, values in latencies.items():
        for p, value in percentiles(values).items():
            rows.append(make_row(case, f"{name} p{p}", [value * 1000], "ms", value / reference[p]))
    return rows


def main() -> None:
    """Measure and save the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=float, default=100, help="events/s")
    parser.add_argument("--seconds", type=float, default=60, help="duration of the measurement")
    parser.add_argument("--history", type=int, default=5000, help="events to learn before the measurement")
    parser.add_argument("--quick", action="store_true", help="10 s after 1,000 events")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.history = 10.0, 1000
    with tempfile.TemporaryDirectory() as folder:
        settings = load(data_dir=Path(folder))
        data = locate(None, None, (), data_dir=Path(".premiere"), folder=settings.data)
        probe = measure(settings, data, options.history, options.rate, options.seconds)
    print(f"events: {len(probe.event_latencies)} measured, {len(probe.pending_events)} without effect in time")
    print(f"launches: {len(probe.launch_latencies)} measured, {len(probe.pending_launches)} without effect in time")
    case = f"{data.name}, {options.rate:g} events/s"
    save_results("latency", latency_rows(case, probe.kafka_latencies, probe.event_latencies, probe.launch_latencies))


if __name__ == "__main__":
    main()
