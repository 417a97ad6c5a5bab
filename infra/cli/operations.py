"""The commands for operators: what is undone, taken out or looked into while the loop runs."""

from collections.abc import Callable
from typing import Annotated, Final

import typer

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Served = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait until publish serves it.")]


def dead_letters(
    reason: Annotated[str | None, typer.Option(help="Only letters of this kind.")] = None,
    last: Annotated[int, typer.Option(min=0, max=1000, help="Show so many of the newest letters, too.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    replay: Annotated[bool, typer.Option("--replay", help="Send them to their topics again, each once.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Send those of an interrupted replay too.")] = False,
    yes: Yes = False,
) -> None:
    """List what producers sent that could not be used, or send it again after a fix."""
    from infra.operate import dead_letter_report as letters
    from infra.settings import connected, load

    if replay:
        letters.send_again(connected(load()), reason, again, lambda what: yes or typer.confirm(what), typer.echo)
    else:
        letters.show(connected(load()), reason, last, as_json)


def reset(yes: Yes = False) -> None:
    """Forget everything that the flows keep: state, features, checkpoints, predictions; asks first."""
    from infra.operate.reset import reset as forget_all
    from infra.settings import load

    forget_all(load(), lambda what: yes or typer.confirm(what), typer.echo)


def forget(
    user: Annotated[str, typer.Argument(help="Whom.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until it has happened.")] = 60.0,
) -> None:
    """Forget a viewer: everything that is kept of them, everywhere; says what cannot be reached, and until when."""
    from infra.operate.erase_user import forget as forget_user
    from infra.settings import connected, load

    forget_user(connected(load()), user, wait, typer.echo)


def compact() -> None:
    """Merge past days of the offline log into a file each, now; the flow `features` does it by itself each hour."""
    from infra.operate.compaction_schedule import run_compact
    from infra.settings import load

    run_compact(load(), typer.echo)


def versions(
    everything: Annotated[bool, typer.Option("--all", help="Those long gone, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts; all of them.")] = False,
) -> None:
    """List the model's versions: what each knew, and whether it can still be served."""
    import json

    from infra.operate import versions as announced
    from infra.settings import connected, load

    rows = announced.listed(connected(load()))
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        announced.show(rows, everything)


def rollback(
    number: Annotated[int, typer.Argument(min=0, help="The version's number.")],
    wait: Served = 30.0,
) -> None:
    """Serve an old version again, and hold later ones back until `premiere resume`."""
    from infra.operate import versions as announced
    from infra.settings import connected, load

    announced.rollback(connected(load()), number, typer.echo, wait)


def resume(wait: Served = 30.0) -> None:
    """End a rollback: serve the newest version again, and what is learned from now on."""
    from infra.operate import versions as announced
    from infra.settings import connected, load

    announced.resume(connected(load()), typer.echo, wait)


def rederive(
    number: Annotated[int, typer.Argument(min=0, help="The version's number.")],
    start: Annotated[int | None, typer.Option("--from", min=0, help="From this version; else the nearest.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Write the checkpoint here (any fsspec URL).")] = None,
) -> None:
    """Make a version again from an older one and the log, and compare it with what is kept, bit for bit."""
    from infra.operate.verify import rederive as derive
    from infra.settings import connected, load

    derive(connected(load()), number, start, to, typer.echo)


COMMANDS: Final[tuple[Callable[..., None], ...]] = (
    dead_letters,
    reset,
    forget,
    compact,
    versions,
    rollback,
    resume,
    rederive,
)
