"""The command `check`: reads the files of a dataset and reports all problems."""

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from infra.cli.options import DEFAULT_RATING_MAX, AsJson, Events, RatingMax, Text, Titles

if TYPE_CHECKING:
    from rich.table import Table

    from infra.data.check import FileReport, Report
    from infra.data.tables import Finding


def check(
    events: Events = None,
    titles: Titles = None,
    text: Text = None,
    rating_max: RatingMax = DEFAULT_RATING_MAX,
    as_json: AsJson = False,
) -> None:
    """Read the files of a dataset, and report by column what is taken, converted and refused; exits 1 on a problem."""
    from infra.data.check import check as check_files
    from infra.data.locate import locate_files
    from infra.data.tables import DataError
    from infra.settings import load

    settings = load()
    files = locate_files(events, titles, data_dir=settings.data_dir, folder=settings.data)
    if files is None:
        raise DataError("There are no files to check: give --events, and --titles if you have them.")
    report = check_files(files, text or (), rating_max)
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        print_report(report)
    raise typer.Exit(0 if report.is_valid else 1)


def print_report(report: "Report") -> None:
    """Print the report as a table for each file, its problems, and the counts."""
    from rich.console import Console

    console = Console()
    for file in report.files:
        console.print(f"{file.file}: {file.rows:,} complete rows", markup=False, highlight=False, soft_wrap=True)
        if file.columns:
            console.print(_table(file))
        for line in _lines(file):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print()
    for line in _summary(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(file: "FileReport") -> "Table":
    from rich.table import Table

    table = Table("  column", "read as", box=None, pad_edge=False, header_style="dim")
    for name in ("taken", "empty", "converted", "refused"):
        table.add_column(name, justify="right")
    for name, read_as, *counts in file.columns:
        table.add_row(f"  {name}", read_as, *(f"{count:,}" for count in counts))
    return table


def _lines(file: "FileReport") -> "Iterator[str]":
    if file.absent:
        yield f"  Optional columns that the file does not have: {', '.join(file.absent)}."
    if file.ignored:
        yield f"  Columns that are not read: {', '.join(map(repr, file.ignored))}."
    for title, findings in (("Converted", file.conversions), ("Refused", file.problems)):
        if findings:
            yield f"  {title}:"
            yield from (f"    {_line(found)}" for found in findings)


def _line(found: "Finding") -> str:
    if not found.rows:
        return found.text
    rows = f"{found.rows:,} rows, the first is row {found.row:,}" if found.rows > 1 else f"row {found.row:,}"
    return f"{found.column or 'row'}: {rows} with {found.value}: {found.text}."


def _summary(report: "Report") -> "Iterator[str]":
    if report.counts:
        first, last = (
            time.strftime("%Y-%m-%d", time.gmtime((ms or 0) / 1000)) for ms in (report.first_ms, report.last_ms)
        )
        counts = ", ".join(f"{count:,} {name}" for name, count in report.counts.items())
        yield f"{counts}; events from {first} to {last}."
    yield from report.notes
    problems = sum(len(file.problems) for file in report.files)
    yield "No problem: every command takes these files." if report.is_valid else f"Problems: {problems}."
