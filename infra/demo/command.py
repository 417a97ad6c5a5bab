"""`premiere demo`: produces a dataset into all flows and reports how well the lists were ranked.

It produces the last 40 % of the events in time order: the first half as a backlog, the second half live, as fast as the
flows keep up, and each user's next event once the user's list knows the previous one (`infra/demo/closed_loop.py`).
Before each live event it reads the user's list from Redis, as a client would (served evaluation).
Everything that it starts is stopped, whatever happens.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.data.datasets import Dataset
from infra.data.download import download
from infra.data.locate import locate
from infra.data.producer import check_not_ahead
from infra.demo.closed_loop import WINDOW
from infra.demo.live_launches import with_live_launches
from infra.demo.report import Outcome, UserReport, as_json, summary, write
from infra.demo.runner import DemoRunner, Pacing, backlog_events
from infra.demo.screen import Screen
from infra.local.session import run_session
from infra.progress import format_duration
from infra.settings import Settings
from infra.settings_table import masked_values
from infra.topics import temporary_topics
from streaming.kafka.source import read_all
from streaming.topics import DEAD_LETTERS, USER_EVENTS, topics

PRODUCED_SHARE: Final = 0.4  # of the events, unless `full`
METRICS_PORT: Final = 9464  # used if the settings disable metrics, which the demo reads
CHECKOUT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    full: bool = False  # the whole dataset, to its end
    speed: float | None = None  # of the live part, as a multiple of the data's own pace
    minutes: float = 7.0  # limit of the whole run, unless `full` or a speed is given
    limit: int = 200  # live events in flight
    window: int = WINDOW  # live events within which users run side by side
    keep: bool = False  # keep the folder of the run
    report: Path = Path()  # folder of report.json and report.html


def locate_or_download(
    settings: Settings,
    events: Path | None,
    titles: Path | None,
    text: tuple[str, ...],
    rating_max: float,
    print_line: Callable[[str], object],
) -> Dataset:
    """The given files, else PREMIERE_DATA, else a download, else simulated users. Raises DataError."""
    where = {"data_dir": settings.data_dir, "folder": settings.data, "seed": settings.seed, "rating_max": rating_max}
    data = locate(events, titles, text, **where)  # type: ignore[arg-type]
    if not data.simulated:
        return data
    print_line("No dataset found: downloading one.")
    fetched = download(settings.data_dir)
    print_line(fetched.message)
    if fetched.folder is not None:
        return locate(events, titles, text, **where)  # type: ignore[arg-type]
    print_line("Users are simulated: the numbers do not show how well Premiere recommends.")
    return data


def demo(settings: Settings, data: Dataset, options: Options, screen: Screen) -> Outcome:
    """Run the demo, write and print the report. Raises PremiereError if nothing moves any more."""
    began = time.monotonic()

    def seconds() -> float:
        return time.monotonic() - began

    part = data if options.full else data.slice(int(len(data) * (1 - PRODUCED_SHARE)))
    check_not_ahead(part, time.time())  # before anything starts
    part = with_live_launches(part, backlog_events(part), seed=settings.seed)
    endless = options.full or options.speed is not None
    until = float("inf") if endless else 60 * options.minutes
    pacing = Pacing(options.limit, options.window, options.speed, until)
    with _folder(options.keep, screen.print_line) as folder, screen:
        own = _own_settings(settings, folder)
        with _empty_log(own), run_session(own) as session:
            runner = DemoRunner(session, part, pacing, screen.show, seconds)
            runner.run()
            result = outcome(runner, seconds())
        screen.print_line(f"Stopped everything after {format_duration(seconds())}.")
    report(result, options, screen)
    return result


def _own_settings(settings: Settings, folder: Path) -> Settings:
    """Settings of a stack of its own; only an external broker is shared."""
    port = settings.metrics_port or METRICS_PORT
    own = {"data_dir": folder, "redis_url": "", "checkpoints": "", "metrics_port": port}
    changed: Settings = settings.model_copy(update=own)
    return changed


def _empty_log(settings: Settings) -> AbstractContextManager[None]:
    """On an external broker: the project's topics, created for the run and deleted after it."""
    if not settings.bootstrap_servers or settings.broker:
        return nullcontext()
    return temporary_topics(settings.kafka_config(), topics(settings.event_partitions))


@contextmanager
def _folder(keep: bool, print_line: Callable[[str], object]) -> Iterator[Path]:
    """A folder for the run, removed at the end; after a failure it stays, because of its logs."""
    folder = Path(tempfile.mkdtemp(prefix="premiere-demo-"))
    try:
        yield folder
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except Exception:
        print_line(f"The logs of the flows are in {folder / 'logs'}.")
        raise
    if keep:
        print_line(f"The files of the run are kept in {folder}.")
    else:
        shutil.rmtree(folder, ignore_errors=True)


def outcome(runner: DemoRunner, seconds: float) -> Outcome:
    """The outcome, read while everything still runs."""
    assert runner.live_start is not None
    status = runner.sampler.status
    config = runner.session.settings.kafka_config()
    return Outcome(
        data=runner.data.name,
        simulated=runner.data.simulated,
        seconds=seconds,
        phases=runner.phases,
        settings={name: value for name, value in masked_values(runner.session.settings).items() if value},
        events=len(runner.data),
        produced=runner.producer.events,
        learned=status.learned,
        duplicates=status.duplicates,
        dead_lettered=dead_events(config),
        samples=runner.sampler.samples,
        live_start=runner.live_start,
        user_reports=user_reports(runner),
        missing_events=runner.client.missing_events,
        window=runner.pacing.window,
        not_waited=runner.loop.not_waited,
        beyond_accuracy=runner.served.beyond_accuracy.report(runner.producer.launches),
    )


def dead_events(config: Mapping[str, str]) -> int:
    """Number of distinct events among the dead letters."""
    headers = (dict(message.headers) for message in read_all(config, DEAD_LETTERS))
    return len({(h["partition"], h["offset"]) for h in headers if h.get("topic") == USER_EVENTS.encode()})


def user_reports(runner: DemoRunner) -> list[UserReport]:
    """The most active users of the live part, with their recent titles and their lists, by title name."""
    end, began = runner.producer.events, int(runner.data.ts[runner.backlog_end])
    late = {runner.demo_users.name(launch.title) for launch in runner.data.launches if (launch.ts or 0) >= began}
    found = []
    for user in runner.demo_users.most_active(runner.backlog_end, end):
        seen = runner.demo_users.portrait(user)
        events = runner.demo_users.events(user)
        found.append(UserReport(user, events, seen.recent_titles, [(name, name in late) for name, _ in seen.listed]))
    return found


def report(outcome: Outcome, options: Options, screen: Screen) -> None:
    """Print the outcome, then write its files. Raises OutputError."""
    print_line = screen.print_line
    screen.results(as_json(outcome))
    print_line(summary(outcome))
    phases = ", ".join(f"{name} {format_duration(took)}" for name, took in outcome.phases.items())
    print_line(f"Time by phase: {phases}.")
    files = write(outcome, options.report)
    print_line(f"Written: {files[0]}, {files[1]}.")
