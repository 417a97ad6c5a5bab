"""`premiere dead-letters`: print the dead letters, and resend them after a confirmation."""

import json
import time
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.operate.dead_letters import DeadLetter, Listing, list_letters
from infra.operate.resend import resend
from infra.settings import Settings


def print_letters(
    settings: Settings, reason: str | None, newest: int, as_json: bool, console: Console | None = None
) -> None:
    """Print the counts by reason and the newest letters. Raises SettingsError, TopicError."""
    listing, console = list_letters(settings.kafka_config(), reason, newest), console or Console()
    if as_json:
        console.print(json.dumps(listing.as_json(), indent=2), markup=False, highlight=False, soft_wrap=True)
    elif not listing.reasons:
        console.print("No dead letters." if reason is None else f"No dead letters with the reason {reason!r}.")
    else:
        console.print(_reason_table(listing))
        console.print("Examples:", *_examples(listing), sep="\n", markup=False, highlight=False, soft_wrap=True)
        for letter in listing.newest:
            console.print(_letter_text(letter), markup=False, highlight=False, soft_wrap=True)


def _reason_table(listing: Listing) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("reason", no_wrap=True)
    for name in ("letters", "duplicates", "resent", "uncertain"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("newest", no_wrap=True)
    for name, group in sorted(listing.reasons.items()):
        counts = [f"{count:,}" for count in (group.letters, group.duplicates, group.resent, group.uncertain)]
        newest = "" if group.newest is None else _time(group.newest, "%m-%d %H:%M:%S")
        table.add_row(escape(name), *counts, newest)
    return table


def _examples(listing: Listing) -> list[str]:
    """The whole reason of the newest letter of each kind."""
    return [f"  {group.newest.reason}" for _, group in sorted(listing.reasons.items()) if group.newest is not None]


def _letter_text(letter: DeadLetter) -> str:
    fields = letter.as_json()
    return (
        f"\n{_time(letter)}  {letter.source}  key {fields['key']!r}  {letter.length:,} bytes\n"
        f"  {letter.reason}\n  {fields['value']!r}"
    )


def _time(letter: DeadLetter, time_format: str = "%Y-%m-%d %H:%M:%S") -> str:
    return time.strftime(time_format, time.localtime(letter.timestamp / 1000))


def resend_letters(
    settings: Settings,
    reason: str | None,
    include_uncertain: bool,
    confirm: Callable[[str], bool],
    print_line: Callable[[str], object],
) -> None:
    """Resend letters after `confirm` returned True. Raises SettingsError, TopicError."""
    listing = list_letters(settings.kafka_config(), reason)
    groups = listing.reasons.values()
    due = sum(group.letters - group.resent - (0 if include_uncertain else group.uncertain) for group in groups)
    if not due:
        print_line("No letters to resend" + (": all of them were resent before." if groups else "."))
    elif confirm(f"Resend up to {due:,} letters to their topics?"):
        result = resend(
            settings.kafka_config(), listing.end, reason, include_uncertain, lambda sent: print_line(f"{sent:,} resent")
        )
        skipped = ", ".join(f"{count:,} {why}" for why, count in sorted(result.skipped.items()))
        print_line(f"Resent {result.sent:,} letters; skipped: {skipped or 'none'}.")
    if uncertain := sum(group.uncertain for group in groups) * (not include_uncertain):
        print_line(f"{uncertain:,} letters are uncertain: their resend was interrupted. `--again` sends them again.")
