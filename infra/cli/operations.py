"""The commands for operators: dead letters, erasure, reset, compaction, and model versions."""

from collections.abc import Callable
from typing import Annotated, Final

import typer

from infra.cli.options import AsJson, UserId

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
VersionNumber = Annotated[int, typer.Argument(min=0, help="The number of the version.")]
PublishTimeout = Annotated[float, typer.Option("--wait", min=0, help="Maximum seconds to wait for publish.")]


def dead_letters(
    reason: Annotated[str | None, typer.Option(help="Only letters with this reason.")] = None,
    newest: Annotated[
        int, typer.Option("--last", min=0, max=1000, help="Also print this many of the newest letters.")
    ] = 0,
    as_json: AsJson = False,
    resend: Annotated[bool, typer.Option("--resend", help="Resend letters to their topics, at most once.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="With --resend: include letters whose resend was interrupted.")
    ] = False,
    yes: Yes = False,
) -> None:
    """List invalid records by reason, or resend them."""
    from infra.local.address_file import with_local_services
    from infra.operate import dead_letter_report
    from infra.settings import load

    settings = with_local_services(load())
    if resend:
        dead_letter_report.resend_letters(settings, reason, again, _confirmation(yes), typer.echo)
    else:
        dead_letter_report.print_letters(settings, reason, newest, as_json)


def reset(yes: Yes = False) -> None:
    """Delete all state of the flows: recovery stores, features, checkpoints and lists; asks for confirmation."""
    from infra.operate.reset import delete_state
    from infra.settings import load

    delete_state(load(), _confirmation(yes), typer.echo)


def erase_user(
    user: UserId,
    wait: Annotated[float, typer.Option(min=0, help="Maximum seconds to wait until it has taken effect.")] = 60.0,
) -> None:
    """Erase a user's data from all stores that the flows write, and list the copies that remain and until when."""
    from infra.local.address_file import with_local_services
    from infra.operate import erase_user as erasure
    from infra.settings import load

    erasure.erase_user(with_local_services(load()), user, wait, typer.echo)


def compact() -> None:
    """Merge the past days of the offline log into one file each; the flow features does this every hour."""
    from infra.operate.compaction_schedule import compact_now
    from infra.settings import load

    compact_now(load(), typer.echo)


def reembed() -> None:
    """Embed every title again with the text encoder of the settings; the flow titles must not run meanwhile."""
    from infra.local.address_file import with_local_services
    from infra.operate import reembed as reembedding
    from infra.settings import load

    reembedding.reembed(with_local_services(load()), typer.echo)


def versions(
    show_all: Annotated[bool, typer.Option("--all", help="Include old versions without a checkpoint.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all versions as JSON.")] = False,
) -> None:
    """List model versions with the events each was trained on and whether the checkpoint still exists."""
    import json

    from infra.local.address_file import with_local_services
    from infra.operate.versions import print_versions, version_rows
    from infra.settings import load

    rows = version_rows(with_local_services(load()))
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        print_versions(rows, show_all)


def rollback(number: VersionNumber, wait: PublishTimeout = 30.0) -> None:
    """Serve an old model version, and ignore newer ones until `premiere rollforward`."""
    from infra.local.address_file import with_local_services
    from infra.operate import versions
    from infra.settings import load

    versions.rollback(with_local_services(load()), number, typer.echo, wait)


def rollforward(wait: PublishTimeout = 30.0) -> None:
    """End a rollback: serve the newest model version, and each later one."""
    from infra.local.address_file import with_local_services
    from infra.operate import versions
    from infra.settings import load

    versions.rollforward(with_local_services(load()), typer.echo, wait)


def verify(
    number: VersionNumber,
    start: Annotated[
        int | None, typer.Option("--from", min=0, help="Start from this version; default: the closest checkpoint.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="Write the checkpoint to this fsspec URL.")] = None,
) -> None:
    """Recompute a model version from an older checkpoint and the learner log, and compare it with its checkpoint."""
    from infra.local.address_file import with_local_services
    from infra.operate import verify as verification
    from infra.settings import load

    verification.verify(with_local_services(load()), number, start, to, typer.echo)


def doctor(as_json: AsJson = False) -> None:
    """Check Kafka, Redis, Feast, disk, ports and encoder, with a remedy for each finding; exits with 1 on an error."""
    import json

    from infra.doctor.command import diagnose
    from infra.doctor.findings import print_findings
    from infra.local.address_file import with_local_services
    from infra.settings import load

    findings = list(diagnose(with_local_services(load())))
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        print_findings(findings, typer.echo)
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


def _confirmation(yes: bool) -> Callable[[str], bool]:
    return lambda question: yes or typer.confirm(question)


COMMANDS: Final[tuple[Callable[..., None], ...]] = (
    dead_letters,
    reset,
    erase_user,
    compact,
    reembed,
    versions,
    rollback,
    rollforward,
    verify,
    doctor,
)
