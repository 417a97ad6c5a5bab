"""`premiere dead-letters`: what is listed, what is asked, and what is said of a replay."""

import json
import time
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.operate.dead_letters import Letter, Listing, listing, replay
from infra.settings import Settings


def show(settings: Settings, reason: str | None, last: int, as_json: bool, console: Console | None = None) -> None:
    """List the letters. Raises SettingsError, TopicError."""
    found, console = listing(settings.kafka(), reason, last), console or Console()
    if as_json:
        console.print(json.dumps(found.as_json(), indent=2), markup=False, highlight=False, soft_wrap=True)
    elif not found.kinds:
        console.print("No dead letters." if reason is None else f"No dead letters of the kind {reason!r}.")
    else:
        console.print(_kinds(found))
        for letter in found.last:
            console.print(_one(letter), markup=False, highlight=False, soft_wrap=True)


def _kinds(found: Listing) -> Table:
    """again: were sent again; doubt: were in a batch whose sending was interrupted."""
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    table.add_column("reason", no_wrap=True)
    for name in ("letters", "doubles", "again", "doubt"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("newest", no_wrap=True)
    table.add_column("example", overflow="ellipsis", no_wrap=True, ratio=1)
    for name, kind in sorted(found.kinds.items()):
        counts = [f"{count:,}" for count in (kind.letters, kind.doubles, kind.replayed, kind.in_doubt)]
        newest = (
            (_time(kind.newest, "%m-%d %H:%M:%S"), escape(kind.newest.reason.partition(": ")[2]))
            if kind.newest
            else ("", "")
        )
        table.add_row(escape(name), *counts, *newest)
    return table


def _one(letter: Letter) -> str:
    shown = letter.shown()
    return (
        f"\n{_time(letter)}  {letter.where}  key {shown['key']!r}  {letter.length:,} bytes\n"
        f"  {letter.reason}\n  {shown['value']!r}"
    )


def _time(letter: Letter, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    return time.strftime(form, time.localtime(letter.at / 1000))


def send_again(
    settings: Settings, reason: str | None, again: bool, agreed: Callable[[str], bool], say: Callable[[str], None]
) -> None:
    """Send letters again, once `agreed`. Raises SettingsError, TopicError."""
    found = listing(settings.kafka(), reason)
    kinds = found.kinds.values()
    due = sum(kind.letters - kind.replayed - (0 if again else kind.in_doubt) for kind in kinds)
    if not due:
        say("There is no letter to send" + (": all that are there were sent before." if kinds else "."))
    elif agreed(f"Send up to {due:,} letters to their topics again?"):
        sent = replay(settings.kafka(), found.end, reason, again, lambda sent: say(f"{sent:,} sent"))
        why = ", ".join(f"{count:,} {name}" for name, count in sorted(sent.impossible.items()))
        say(f"Sent {sent.sent:,} letters again; not sent: {why or 'none'}.")
    if in_doubt := sum(kind.in_doubt for kind in kinds) * (not again):
        say(f"{in_doubt:,} are in doubt: their sending was interrupted. `--again` sends them (perhaps) once more.")
