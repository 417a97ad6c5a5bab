"""`make results`: run all quality measurements and write the results pages; takes hours and prints progress.

Each part writes its result to build/results/<part>.json. A part whose file was made from the same data, limit and
settings is not run again, so an interrupted run continues where it stopped. The last step reads all files and writes
docs/results/results.md, and docs/results/reports.md with the reports of the commands, with their figures beside them. A
page for which there is no part is not changed.

    python -m infra.experiments.results                                 all missing parts
    python -m infra.experiments.results --only ablations --limit 2000   parts whose name starts so, on fewer events
    python -m infra.experiments.results --events e.csv --titles t.csv   on your own data
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
from infra.data.datasets import Dataset
from infra.data.locate import locate
from infra.experiments import ablations, evaluate, other_streams, reports_page, results_page, retraining, user_sequences
from infra.experiments.baseline_report import against_baselines
from infra.experiments.coldstart import cold_share
from infra.experiments.harness import ScoredEvents
from infra.experiments.machine import device
from infra.experiments.reports import REPORT_PARTS, ReportPart
from infra.learner_settings import learner_settings, set_threads
from infra.progress import Reporter
from infra.settings import load as load_settings
from model import checkpoint
from model.settings import LearnerSettings
from model.signals.table import SIGNALS

CHECKOUT: Final = Path(__file__).resolve().parents[2]
RESULT_FOLDER: Final = CHECKOUT / "build" / "results"
PAGE: Final = CHECKOUT / "docs" / "results" / "results.md"
REPORTS_PAGE: Final = "reports.md"  # beside PAGE


@dataclass(frozen=True)
class ResultsPart:
    """One measurement of the results pages."""

    name: str
    limit: int | None  # default number of events; None: all
    data: Callable[[int | None], Any]  # loads a Dataset or UserSequences, given the limit
    run: Callable[[Any, Reporter], dict[str, Any]]


def headline(encode: Encoder, settings: LearnerSettings, data: Dataset, progress: Reporter) -> dict[str, Any]:
    """The prequential evaluation, with curves and paired differences."""
    recorded = ScoredEvents()
    report = evaluate.evaluate(data, encode, settings, progress, recorded.add, with_backbone_only=True)
    return {"report": report, **against_baselines(recorded, ["no_backbone", "frozen"])}


def parts(
    given: Callable[[int | None], Dataset],
    encode: Encoder,
    settings: LearnerSettings,
    minutes: float,
    clicks: Path | None = None,
    ml_1m: Path | None = None,
) -> Iterator[ResultsPart]:
    """All parts in the order of the pages. Parts on news clicks need the file `clicks`, parts on MovieLens-1M the
    folder `ml_1m`. `minutes`: of the throughput measurement."""
    yield ResultsPart("headline", None, given, partial(headline, encode, settings))
    for group in ablations.ablation_groups(0.0):
        yield ResultsPart(f"ablations-{group}", 8_000, given, partial(run_ablations, group, encode, settings))
    yield ResultsPart("retraining", 20_000, given, partial(run_retraining, encode, settings))
    sources: dict[str, Callable[[int | None], Any]] = {"given": given}
    if clicks:
        sources["globo"] = partial(other_streams.globo, clicks)
        run = partial(run_comparison, encode, settings)
        yield ResultsPart("globo", 20_000, sources["globo"], run)
    if ml_1m:
        sources["ml-1m"] = lambda limit: user_sequences.load(ml_1m / "ml1m_ordered.parquet", limit=limit)
        run = partial(run_comparison, encode, settings)
        yield ResultsPart("ml-1m", 20_000, lambda limit: other_streams.ml_1m(ml_1m).slice(0, limit), run)
    if clicks:
        run = partial(run_throughput, encode, settings, minutes)
        yield ResultsPart("throughput", 1_200_000, sources["globo"], run)
    for name, part in REPORT_PARTS.items():
        if part.dataset in sources:
            yield ResultsPart(name, part.limit, sources[part.dataset], partial(run_report, part, encode, settings))


def run_ablations(
    group: str, encode: Encoder, settings: LearnerSettings, data: Dataset, progress: Reporter
) -> dict[str, Any]:
    """One group of ablations."""
    rows = ablations.ablation_groups(cold_share(data))[group]
    return {"rows": ablations.run(rows, data, encode, settings, progress)}


def run_retraining(encode: Encoder, settings: LearnerSettings, data: Dataset, progress: Reporter) -> dict[str, Any]:
    """Online learning against batch retraining."""
    return retraining.run(data, encode, settings, progress)


def run_comparison(encode: Encoder, settings: LearnerSettings, data: Dataset, progress: Reporter) -> dict[str, Any]:
    """The model and the baselines on another stream."""
    return other_streams.compare(data, encode, settings, progress)


def run_throughput(
    encode: Encoder, settings: LearnerSettings, minutes: float, data: Dataset, progress: Reporter
) -> dict[str, Any]:
    """The learner's speed and memory."""
    return {"minutes": minutes, "samples": other_streams.throughput(data, encode, settings, minutes, progress)}


def run_report(
    part: ReportPart, encode: Encoder, settings: LearnerSettings, data: Any, progress: Reporter
) -> dict[str, Any]:
    """The report of one command. Readers of news return to articles, so globo counts repeats."""
    return part.run(data, encode, replace(settings, repeats=settings.repeats or part.dataset == "globo"), progress)


def run_part(part: ResultsPart, inputs: dict[str, Any], folder: Path, progress: Reporter) -> None:
    """Run a part, unless its file has the result for the same inputs already."""
    file = folder / f"{part.name}.json"
    if file.exists() and json.loads(file.read_text())["inputs"] == inputs:
        progress.line("up to date")
        return
    data = part.data(inputs["limit"])
    progress.line(f"{data.name}, {len(data):,} events")
    began = time.monotonic()
    content = {
        "inputs": inputs,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "device": device(),
        "torch": version("torch"),
        "command": " ".join(["python -m infra.experiments.results", *sys.argv[1:]]),
        "data": {"name": data.name, "events": len(data), "simulated": data.simulated},
        "result": part.run(data, progress),
        "seconds": round(time.monotonic() - began),
    }
    partial_file = file.with_suffix(".partial")  # renamed when complete, so that every .json file is complete
    partial_file.write_text(json.dumps(content, indent=1, default=str) + "\n")
    partial_file.rename(file)


def main(arguments: list[str] | None = None, settings: LearnerSettings | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=Path, help="your events: CSV or Parquet with user, item, ts")
    parser.add_argument("--titles", type=Path, help="your titles: CSV or Parquet with item, title")
    parser.add_argument("--clicks", type=Path, help="news clicks: clicks.parquet of Globo.com (user, item, ts_ms)")
    parser.add_argument("--ml-1m", type=Path, help="folder of MovieLens-1M in order: ml1m_ordered.parquet, movies.dat")
    parser.add_argument("--only", action="append", help="run parts whose name starts so; repeatable")
    parser.add_argument("--limit", type=int, help="events per part; default: set by each part")
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes of the throughput measurement")
    parser.add_argument("--rerun", action="store_true", help="run up-to-date parts again")
    parser.add_argument("--folder", type=Path, default=RESULT_FOLDER, help="folder for the results of the parts")
    parser.add_argument("--page", type=Path, default=PAGE, help="results page; reports.md and figures go beside it")
    options = parser.parse_args(arguments)
    set_threads(1)
    in_force = load_settings()
    encode = load_encoder(in_force.text_encoder)
    model = settings or learner_settings(in_force, encode.width)

    def given(limit: int | None) -> Dataset:
        where = {"data_dir": in_force.data_dir, "folder": in_force.data, "seed": in_force.seed}
        return locate(options.events, options.titles, **where).slice(0, limit)  # type: ignore[arg-type]

    options.folder.mkdir(parents=True, exist_ok=True)
    for part in parts(given, encode, model, options.minutes, options.clicks, options.ml_1m):
        if options.only and not part.name.startswith(tuple(options.only)):
            continue
        if options.rerun:
            (options.folder / f"{part.name}.json").unlink(missing_ok=True)
        inputs = {"limit": options.limit or part.limit, "settings": asdict(model), "signals": list(SIGNALS)}
        inputs |= {"format": checkpoint.FORMAT}  # raised whenever the learner's state changes, which changes results
        inputs |= {"events": str(options.events), "minutes": options.minutes if part.name == "throughput" else None}
        run_part(part, json.loads(json.dumps(inputs, default=str)), options.folder, Reporter(prefix=f"[{part.name}] "))
    write_pages(options.folder, options.page)


def write_pages(folder: Path, page: Path) -> None:
    """Write the pages of the parts that exist, and draw their figures."""
    results = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
    reports = {name: results.pop(name) for name in REPORT_PARTS if name in results}
    page.parent.mkdir(parents=True, exist_ok=True)
    reports_path = page.with_name(REPORTS_PAGE)
    for path, files, lines in ((page, results, results_page.lines), (reports_path, reports, reports_page.lines)):
        if files:
            path.write_text("\n".join(line.rstrip(" ") for line in lines(files, path)) + "\n")


if __name__ == "__main__":
    main()
