"""`make evidence`: every table and figure about quality, made again; long, with progress.

Each part writes what it found to build/evidence/<part>.json, so that an interrupted run goes on where it stopped: a
part whose file was made of the same data, limit and settings is not run again. The last step reads the files, whatever
parts they are of, and writes docs/evidence.md, and docs/answers.md of the questions, with their figures beside them; a
page that no part is of is left as it is.

    python -m infra.experiments.results                                 all parts that are missing
    python -m infra.experiments.results --only ablations --limit 2000   those whose name begins so, on fewer events
    python -m infra.experiments.results --events e.csv --titles t.csv   on one's own data
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from features.text_encoders import Encoder, load_encoder
from infra.data.datasets import DataSet
from infra.data.locate import find
from infra.experiments import ablations, evaluate, other_streams, reports_page, results_page, retraining, user_sequences
from infra.experiments.coldstart import cold_share
from infra.experiments.harness import ALONE, ProgressPrinter, Recorded, Say, alone, watched
from infra.experiments.machine import device
from infra.experiments.reports import REPORT_PARTS, ReportPart
from infra.run.learn import learner_settings, numerics
from infra.settings import load as load_settings
from model import checkpoint
from model.learner import LearnerSettings, RankedEvent
from model.metrics.baselines import NAMES
from model.signals.table import SIGNALS

CHECKOUT: Final = Path(__file__).resolve().parents[2]
FILES: Final = CHECKOUT / "build" / "evidence"
PAGE: Final = CHECKOUT / "docs" / "evidence.md"


@dataclass(frozen=True)
class Part:
    """name · limit: events that it takes unless asked otherwise, None: all · data · find: what it measures on them."""

    name: str
    limit: int | None
    data: Callable[[int | None], Any]  # DataSet or Orders
    find: Callable[[Any, Say], dict[str, Any]]


def headline(encode: Encoder, settings: LearnerSettings, data: DataSet, say: Say) -> dict[str, Any]:
    """The whole evaluation, with curves and paired intervals."""
    pipelines = {name: watched(settings, backbone=name == "full") for name in evaluate.MODELS[:2]}
    recorded = Recorded()
    progress = ProgressPrinter(len(data), say)

    def each(place: int, event: RankedEvent, ranks: dict[str, float]) -> None:
        recorded.add(event, ranks | alone(pipelines, place))

    def shown(done: int, _whole: int, _rankings: object) -> None:
        progress(done, recorded)

    report = evaluate.evaluate(data, encode, settings, shown, each, dict(pipelines))
    mrr = {name: recorded.mrr(name) for name in recorded.ranks}
    best = max(NAMES, key=lambda name: mrr[name]["all"] or 0.0)
    rivals = ["no_backbone", "frozen", best]
    pairs = [("full", rival) for rival in rivals] + [("full" + ALONE, best)]
    return {
        "report": report,
        "mrr": mrr,
        "best": best,
        "gains": [{"of": a, "over": b, "gain": recorded.gain(a, b)} for a, b in pairs],
        "curve": recorded.curve(),
    }


def parts(
    given: Callable[[int | None], DataSet],
    encode: Encoder,
    settings: LearnerSettings,
    minutes: float,
    clicks: Path | None = None,
    films: Path | None = None,
) -> Iterator[Part]:
    """All of them, in the order of the page; those of the news clicks and of the film order only where the file
    `clicks` and the folder `films` are given."""
    yield Part("headline", None, given, partial(headline, encode, settings))
    for group in ablations.tables(0.0):
        find_rows = partial(ablate, group, encode, settings)
        yield Part(f"ablations-{group}", 8_000, given, find_rows)
    yield Part("retraining", 20_000, given, lambda data, say: retraining.run(data, encode, settings, say))
    if clicks:
        of_the_hour = partial(compared, encode, settings, other_streams.HOUR)
        yield Part("globo", 20_000, partial(other_streams.globo, clicks), of_the_hour)
    if films:
        yield Part(
            "ml-1m",
            20_000,
            lambda limit: other_streams.ml_1m(films).slice(0, limit),
            partial(compared, encode, settings, 30),
        )
    if clicks:
        timed = partial(pace, encode, settings, minutes)
        yield Part("rates", 1_200_000, partial(other_streams.globo, clicks), timed)
    where = {"given": given}
    if clicks:
        where["globo"] = partial(other_streams.globo, clicks)
    if films:
        where["ml-1m"] = lambda limit: user_sequences.load(films / "ml1m_ordered.parquet", limit=limit)  # type: ignore[assignment, return-value]
    for name, asked in REPORT_PARTS.items():
        if asked.of in where:
            yield Part(name, asked.limit, where[asked.of], partial(answered, asked, encode, settings))


def ablate(group: str, encode: Encoder, settings: LearnerSettings, data: DataSet, say: Say) -> dict[str, Any]:
    """One group of rows."""
    rows = ablations.tables(cold_share(data))[group]
    return {"rows": ablations.run(rows, data, encode, settings, say)}


def compared(encode: Encoder, settings: LearnerSettings, days: float, data: DataSet, say: Say) -> dict[str, Any]:
    """Another stream."""
    return other_streams.compare(data, encode, settings, say, days)


def pace(encode: Encoder, settings: LearnerSettings, minutes: float, data: DataSet, say: Say) -> dict[str, Any]:
    """The learner's own speed."""
    return {"minutes": minutes, "looks": other_streams.rates(data, encode, settings, minutes, say)}


def answered(asked: ReportPart, encode: Encoder, settings: LearnerSettings, data: Any, say: Say) -> dict[str, Any]:
    """One of the questions; whoever reads clicks of news comes back to them."""
    return asked.find(data, encode, replace(settings, repeats=settings.repeats or asked.of == "globo"), say)


def obtain(part: Part, asked: dict[str, Any], files: Path, say: Say) -> None:
    """Run a part, unless its file answers the same question already."""
    file = files / f"{part.name}.json"
    if file.exists() and json.loads(file.read_text())["asked"] == asked:
        say("done before")
        return
    data = part.data(asked["limit"])
    say(f"{data.name}, {len(data):,} events")
    began = time.monotonic()
    found = {
        "asked": asked,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "device": device(),
        "torch": version("torch"),
        "command": " ".join(["python -m infra.experiments.results", *sys.argv[1:]]),
        "data": {"name": data.name, "events": len(data), "simulated": data.simulated},
        "found": part.find(data, say),
        "seconds": round(time.monotonic() - began),
    }
    half = file.with_suffix(".half")  # a file that is there is whole
    half.write_text(json.dumps(found, indent=1, default=str) + "\n")
    half.rename(file)


def told(name: str) -> Say:
    """Progress of a part, on stderr."""
    return lambda line: print(f"[{name}] {line}", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None, settings: LearnerSettings | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=Path, help="your events: CSV or Parquet with user, item, ts")
    parser.add_argument("--titles", type=Path, help="your titles: CSV or Parquet with item, title")
    parser.add_argument("--clicks", type=Path, help="news clicks: clicks.parquet of Globo.com (user, item, ts_ms)")
    parser.add_argument("--ml-1m", type=Path, help="folder of MovieLens-1M in order: ml1m_ordered.parquet, movies.dat")
    parser.add_argument("--only", action="append", help="parts whose name begins so; may be given again")
    parser.add_argument("--limit", type=int, help="events of each part; as each part sets unless given")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the learner at full speed")
    parser.add_argument("--fresh", action="store_true", help="run parts that were run before again")
    parser.add_argument("--files", type=Path, default=FILES, help="folder of the parts' files")
    parser.add_argument(
        "--page", type=Path, default=PAGE, help="a page to write; the other and the figures go beside it"
    )
    given = parser.parse_args(arguments)
    numerics(1)
    world = load_settings()
    model = settings or learner_settings(world)

    def chosen(limit: int | None) -> DataSet:
        where = {"data_dir": world.data_dir, "folder": world.data, "seed": world.seed}
        return find(given.events, given.titles, **where).slice(0, limit)  # type: ignore[arg-type]

    given.files.mkdir(parents=True, exist_ok=True)
    for part in parts(chosen, load_encoder(world.text_encoder), model, given.minutes, given.clicks, given.ml_1m):
        if given.only and not part.name.startswith(tuple(given.only)):
            continue
        if given.fresh:
            (given.files / f"{part.name}.json").unlink(missing_ok=True)
        asked = {"limit": given.limit or part.limit, "settings": asdict(model), "signals": list(SIGNALS)}
        asked |= {"format": checkpoint.FORMAT}  # what the learner keeps changed with it, and so what it finds
        asked |= {"events": str(given.events), "minutes": given.minutes if part.name == "rates" else None}
        obtain(part, json.loads(json.dumps(asked, default=str)), given.files, told(part.name))
    publish(given.files, given.page)


def publish(files: Path, page: Path) -> None:
    """The pages of the parts that are there; figures are drawn on the way."""
    found = {file.stem: json.loads(file.read_text()) for file in sorted(files.glob("*.json"))}
    asked = {name: found.pop(name) for name in REPORT_PARTS if name in found}
    page.parent.mkdir(parents=True, exist_ok=True)
    beside = page.with_name("answers.md")
    for path, parts, lines in ((page, found, results_page.lines), (beside, asked, reports_page.lines)):
        if parts:
            path.write_text("\n".join(line.rstrip(" ") for line in lines(parts, path)) + "\n")


if __name__ == "__main__":
    main()
