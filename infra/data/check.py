"""`premiere check`: what would be taken, refused and converted in the files of a dataset.

It reads the files with the functions of every other command. Those stop at the first problem; here all are collected.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd

from infra.data.datasets import EventColumns, KnownTitles, assemble, read_events, read_titles
from infra.data.locate import Files
from infra.data.tables import DataError, Finding, Findings, Table, read_table
from model.actions import ACTIONS
from streaming.kafka.dead_letters import MAX_FUTURE
from streaming.records import MAX_RATING

EVENT_COLUMNS: Final = {  # column -> what it is read as
    "user": "id",
    "item": "id",
    "ts": "time, Unix seconds",
    "rating": "rating",
    "action": "action",
}
TITLE_COLUMNS: Final = {
    "item": "id",
    "title": "text",
    "genres": "genres",
    "overview": "text",
    "year": "year",
    "release_date": "date",
    "launched_ts": "time, Unix seconds",
}
REQUIRED: Final = {"user", "item", "ts"}  # an empty cell is refused
PLAUSIBLE_MS: Final = 315_532_800_000  # 1980-01-01: earlier events are probably not in Unix seconds


class ColumnCount(NamedTuple):
    """How many cells of a column were taken, are empty, were converted, or refused."""

    column: str
    read_as: str
    taken: int
    empty: int
    converted: int
    refused: int


@dataclass
class FileReport:
    """The findings of one file."""

    file: str
    rows: int = 0  # with as many cells as the header
    columns: list[ColumnCount] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)  # optional columns that the file does not have
    ignored: list[str] = field(default_factory=list)  # columns that no command reads
    problems: list[Finding] = field(default_factory=list)
    conversions: list[Finding] = field(default_factory=list)


@dataclass
class Report:
    """The findings of a dataset. The counts are empty if a file has a problem."""

    files: list[FileReport]
    counts: dict[str, int] = field(default_factory=dict)  # what is counted -> how many
    first_ms: int | None = None  # time of the first event
    last_ms: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def is_valid(self) -> bool:
        """Whether every command takes the files."""
        return not any(file.problems for file in self.files)

    def as_json(self) -> dict[str, Any]:
        """The report for scripts."""
        files = [
            {
                **asdict(file),
                "columns": [one._asdict() for one in file.columns],
                "problems": [one._asdict() for one in file.problems],
                "conversions": [one._asdict() for one in file.conversions],
            }
            for file in self.files
        ]
        return {**asdict(self), "valid": self.is_valid, "files": files}


def check(
    files: Files, text: Sequence[str] = (), rating_max: float = MAX_RATING, clock: Callable[[], float] = time.time
) -> Report:
    """Read the files and report all findings."""
    columns: list[EventColumns] = []
    known: list[KnownTitles] = []
    reports = [
        _check_file(files.events, EVENT_COLUMNS, lambda table: columns.append(_events(table, rating_max, clock)))
    ]
    if files.titles:
        expected = {**TITLE_COLUMNS, **dict.fromkeys(text, "text")}
        reports.append(_check_file(files.titles, expected, lambda table: known.append(read_titles(table, text))))
    report = Report(reports)
    if report.is_valid:
        _add_counts(report, columns[0], known[0] if known else {})
    return report


def _events(table: Table, rating_max: float, clock: Callable[[], float]) -> EventColumns:
    columns = read_events(table, rating_max)
    limit_ms = (clock() + MAX_FUTURE.total_seconds()) * 1000
    table.reject("ts", columns.ts_N > limit_ms, "later than now: `premiere produce` and `premiere demo` refuse it")
    return columns


def _check_file(path: Path, expected: dict[str, str], read: Callable[[Table], None]) -> FileReport:
    findings = Findings()
    report = FileReport(str(path), problems=findings.problems, conversions=findings.conversions)
    try:
        table = read_table(path, findings)
        read(table)
    except DataError as error:
        findings.problems.append(Finding("", 0, 0, "", str(error)))
        return report
    report.rows = len(table.rows)
    report.columns = [_count(table, name, read_as, findings) for name, read_as in expected.items() if name in table]
    report.absent = [name for name in expected if name not in table and name not in REQUIRED]
    report.ignored = [str(name) for name in table.rows.columns if name not in expected]
    return report


def _count(table: Table, name: str, read_as: str, findings: Findings) -> ColumnCount:
    refused = sum(problem.rows for problem in findings.problems if problem.column == name)
    converted = sum(found.rows for found in findings.conversions if found.column == name)
    empty = 0 if name in REQUIRED else int(table.column(name).isna().sum())
    return ColumnCount(name, read_as, len(table.rows) - empty - refused, empty, converted, refused)


def _add_counts(report: Report, events: EventColumns, known: KnownTitles) -> None:
    data = assemble(events, known, name="")
    with_row = len(set(data.titles) & known.keys())
    report.counts = {
        "events": len(data),
        "users": len(data.users),
        "titles with events": len(data.titles),
        "launches": len(data.launches),
    }
    if known:
        report.counts["titles with events and a row in the titles file"] = with_row
    report.first_ms, report.last_ms = int(data.ts[0]), int(data.ts[-1])
    repeated = pd.DataFrame({"user": data.user, "item": data.title, "ts": data.ts}).duplicated().sum()
    if repeated:
        report.notes.append(f"{repeated:,} events repeat the user, item and ts of another: each of them is an event.")
    if early := int((data.ts < PLAUSIBLE_MS).sum()):
        report.notes.append(f"{early:,} events are before 1980: times must be in Unix seconds.")
    if not data.targets_before(len(data)):
        names = ", ".join(name for name, meaning in ACTIONS.items() if meaning.weight == 0)
        report.notes.append(f"No event is a training target: all are context only ({names}).")
    if known and not with_row:
        report.notes.append("No item of the events is in the titles file: compare their ids.")
