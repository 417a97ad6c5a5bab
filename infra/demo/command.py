"""`premiere demo`: a data set through the whole loop, from an empty machine to lists that were learned while it ran.

The last 40 % of the events is played: the first half as history, all at once, which the flows catch up on; the second
half live, as fast as the loop keeps up. Before each live event the replayer reads its viewer's list in Redis, as a
client would: that is the served number. Everything that was started is stopped, whatever happens.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.data.datasets import DataSet
from infra.data.download import fetch
from infra.data.locate import find
from infra.demo.report import Outcome, Portrait, as_json, summary, write
from infra.demo.runner import DemoRunner, Pacing
from infra.demo.screen import Screen, clock
from infra.local.session import running
from infra.settings import Settings, shown
from infra.topics import borrowed
from streaming.kafka.source import read_all
from streaming.topics import DEAD_LETTERS, USER_EVENTS, topics

LAST: Final = 0.4  # share of the data set that is played, unless all of it is
METRICS_PORT: Final = 9464  # where the settings switch metrics off: the demo reads them
CHECKOUT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Options:
    """full: all of the data, to its end · speed: times the data's own pace, live · minutes: when the live part ends at
    the latest, unless `full` or a speed is given · limit: live events in flight · keep: the folder of the run · report:
    folder of what is written."""

    full: bool = False
    speed: float | None = None
    minutes: float = 7.0
    limit: int = 200
    keep: bool = False
    report: Path = Path()


def obtain(
    settings: Settings,
    events: Path | None,
    titles: Path | None,
    text: tuple[str, ...],
    say: Callable[[str], object],
) -> DataSet:
    """The given files, else what lies there, else what can be fetched, else a simulated audience. Raises DataError."""
    where = {"data_dir": settings.data_dir, "folder": settings.data, "seed": settings.seed}
    data = find(events, titles, text, **where)  # type: ignore[arg-type]
    if not data.simulated:
        return data
    say("There is no data set here: trying to fetch one.")
    fetched = fetch(settings.data_dir)
    say(fetched.said)
    if fetched.folder is not None:
        return find(events, titles, text, **where)  # type: ignore[arg-type]
    say("The audience is simulated: the numbers say that the loop works, not how well it recommends.")
    return data


def demo(settings: Settings, data: DataSet, options: Options, screen: Screen) -> Outcome:
    """Run it, write the report, say what came out. Raises PremiereError where it does not go on."""
    began = time.monotonic()

    def seconds() -> float:
        return time.monotonic() - began

    part = data if options.full else data.slice(int(len(data) * (1 - LAST)))
    endless = options.full or options.speed is not None
    gait = Pacing(options.limit, options.speed, float("inf") if endless else 60 * options.minutes)
    with _folder(options.keep, screen.say) as folder, screen:
        own = _own(settings, folder)
        with _log(own), running(own) as loop:
            tour = DemoRunner(loop, part, gait, screen.show, seconds)
            tour.run()
            result = outcome(tour, seconds())
        screen.say(f"Stopped everything after {clock(seconds())}.")
    _tell(result, options, screen)
    return result


def _own(settings: Settings, folder: Path) -> Settings:
    """A stack of the demo's own, a broker that is named apart."""
    port = settings.metrics_port or METRICS_PORT
    own = {"data_dir": folder, "redis_url": "", "checkpoints": "", "metrics_port": port}
    return settings.model_copy(update=own)


def _log(settings: Settings) -> AbstractContextManager[None]:
    """An empty log on a broker that is named."""
    if not settings.bootstrap_servers or settings.broker:
        return nullcontext()
    return borrowed(settings.kafka(), topics(settings.event_partitions))


@contextmanager
def _folder(keep: bool, say: Callable[[str], object]) -> Iterator[Path]:
    """A fresh folder for the run, which goes with it; after a failure it stays, for its logs."""
    folder = Path(tempfile.mkdtemp(prefix="premiere-demo-"))
    try:
        yield folder
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except Exception:
        say(f"The flows' logs are in {folder / 'logs'}.")
        raise
    if keep:
        say(f"Everything that the run wrote is kept in {folder}.")
    else:
        shutil.rmtree(folder, ignore_errors=True)


def outcome(tour: DemoRunner, seconds: float) -> Outcome:
    """What is to report, read while everything still runs."""
    assert tour.mark is not None
    status = tour.watch.status
    config = tour.loop.settings.kafka()
    return Outcome(
        data=tour.data.name,
        simulated=tour.data.simulated,
        seconds=seconds,
        phases=tour.phases,
        settings={name: value for name, value in shown(tour.loop.settings).items() if value},
        events=len(tour.data),
        produced=tour.replay.events,
        learned=status.learned,
        duplicates=status.duplicates,
        dead_lettered=dead_events(config),
        samples=tour.watch.samples,
        mark=tour.mark,
        portraits=portraits(tour),
        behind=tour.client.behind,
        shown=tour.served.exposure.report(tour.replay.launches),
    )


def dead_events(config: Mapping[str, str]) -> int:
    """Events among the dead letters, each once whatever was repeated."""
    headers = (dict(message.headers) for message in read_all(config, DEAD_LETTERS))
    return len({(h["partition"], h["offset"]) for h in headers if h.get("topic") == USER_EVENTS.encode()})


def portraits(tour: DemoRunner) -> list[Portrait]:
    """Viewers of the live part, with what they watched and what they are shown, by name."""
    end, began = tour.replay.events, int(tour.data.ts[tour.half])
    late = {tour.viewers.name(launch.title) for launch in tour.data.launches if (launch.ts or 0) >= began}
    found = []
    for user in tour.viewers.lively(tour.half, end):
        seen = tour.viewers.look(user, end)
        events = tour.viewers.events(user, end)
        found.append(Portrait(user, events, seen.watched, [(name, name in late) for name, _ in seen.listed]))
    return found


def _tell(outcome: Outcome, options: Options, screen: Screen) -> None:
    files, say = write(outcome, options.report), screen.say
    screen.results(as_json(outcome))
    say(summary(outcome))
    say("Where the time went: " + ", ".join(f"{name} {clock(took)}" for name, took in outcome.phases.items()) + ".")
    say(f"Written: {files[0]}, {files[1]}.")
