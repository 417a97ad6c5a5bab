"""What `premiere doctor` found, and how it is printed."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

Level = Literal["ok", "warning", "error"]
LABELS: Final[dict[str, str]] = {"ok": "ok     ", "warning": "WARNING", "error": "ERROR  "}


class Finding(NamedTuple):
    """One checked fact. An error means that the flows would not work; a warning, that something is at risk.

    An error refuses the start of a flow, unless waiting may remove it.
    """

    level: Level
    part: str  # of the deployment: settings, kafka, redis, disk, ...
    text: str
    remedy: str = ""
    may_pass: bool = False  # without a change of the deployment, such as an outage


Check = Callable[[], Iterator[Finding]]


def print_findings(findings: Sequence[Finding], print_line: Callable[[str], object]) -> None:
    """One line per finding, its remedy below it, and a summary."""
    for finding in findings:
        print_line(f"{LABELS[finding.level]} {finding.part:<9} {finding.text}")
        if finding.remedy and finding.level != "ok":
            print_line(f"{'':<18}{finding.remedy}")
    errors, warnings = (sum(one.level == level for one in findings) for level in ("error", "warning"))
    print_line(f"{errors} errors, {warnings} warnings.")
