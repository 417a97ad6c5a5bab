"""The command line `premiere`.

Each command is a thin function that imports what it needs when it runs, so `--help` is fast. A PremiereError is printed
to stderr as one sentence without a traceback. Its exit code is 1, 2 for an invalid setting, as for wrong usage, or 3 if
another process owns the flow. Any other exception is a bug and keeps its traceback.
"""

import errno
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from typer.core import TyperGroup

from infra.cli import evaluate, experiments, operations
from infra.cli.check import check
from infra.cli.options import DEFAULT_RATING_MAX, AsJson, Events, RatingMax, Text, Titles, UserId
from infra.errors import PremiereError

# Of a file system: no bug of a command, whichever file it writes.
HOST_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


class _CommandGroup(TyperGroup):
    """Prints expected errors without a traceback."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        os.umask(0o077)  # histories of users are in most files: only their owner may read them
        try:
            return super().invoke(ctx)
        except PremiereError as error:
            typer.echo(f"premiere: {error}", err=True)
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if error.errno not in HOST_ERRORS or (error.filename is None and error.errno != errno.ENOSPC):
                raise
            typer.echo(f"premiere: {error.filename or 'The output'} cannot be used: {error.strerror}.", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_CommandGroup,
    help="A streaming recommender: it learns from user events and updates the lists in Redis within seconds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


Broker = Annotated[
    Literal["embedded", "apache"] | None, typer.Option(help="The broker to start; default: the setting `broker`.")
]
Speed = Annotated[float | None, typer.Option(min=1e-9, help="Multiple of the speed of the recorded events.")]
Wait = Annotated[float, typer.Option(min=0.1, help="Maximum seconds to wait for the result.")]


@app.command()
def up(
    broker: Broker = None,
    kafka_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the started broker; default: a free one.")
    ] = 0,
    redis_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the started Redis; default: a free one.")
    ] = 0,
) -> None:
    """Start a broker and a Redis (if none are set) and all flows; runs until Ctrl-C."""
    from infra.local.up import up as run_up
    from infra.settings import load

    run_up(load(broker=broker), kafka_port, redis_port)


@app.command()
def run(
    flow: Annotated[Literal["features", "titles", "learn", "publish"], typer.Argument(help="The flow.")],
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Number of worker processes; default: the setting.")
    ] = None,
    process: Annotated[int | None, typer.Option(min=0, help="Run only the worker with this index, from 0.")] = None,
    addresses: Annotated[str, typer.Option(help="Comma-separated host:port of all workers (features, titles).")] = "",
) -> None:
    """Run one flow until SIGTERM or Ctrl-C; it then drains, saves its state and exits with 0."""
    from infra.local.address_file import with_local_services
    from infra.run.worker_group import start_flow
    from infra.settings import load

    start_flow(flow, with_local_services(load()), workers, process, tuple(filter(None, addresses.split(","))))


@app.command()
def topics(create: Annotated[bool, typer.Option("--create", help="First create missing topics.")] = False) -> None:
    """List the topics and their numbers of partitions."""
    from infra.local.address_file import with_local_services
    from infra.settings import load
    from infra.topics import create_topics, partition_counts
    from streaming.kafka.client import topic_name
    from streaming.topics import topics as project_topics

    settings = with_local_services(load())
    wanted = project_topics(settings.event_partitions)
    if create:
        create_topics(settings.kafka_config(), wanted)
    counts = partition_counts(settings.kafka_config())
    for topic in wanted:
        typer.echo(f"{topic_name(settings.kafka_config(), topic.name):<16} {counts.get(topic.name, 'missing')}")


@app.command()
def settings(
    table: Annotated[bool, typer.Option("--table", help="Print all settings with their meanings.")] = False,
) -> None:
    """Show the current settings; secrets are masked."""
    from infra.local.address_file import with_local_services
    from infra.settings import load
    from infra.settings_table import masked_values, model_settings_table, settings_table

    if table:
        typer.echo(f"{settings_table()}\n{model_settings_table()}", nl=False)
        return
    for name, value in masked_values(with_local_services(load())).items():
        typer.echo(f"{name:<32} {value}".rstrip())


@app.command()
def demo(
    events: Events = None,
    titles: Titles = None,
    text: Text = None,
    rating_max: RatingMax = DEFAULT_RATING_MAX,
    full: Annotated[bool, typer.Option("--full", help="Run the whole dataset, however long it takes.")] = False,
    speed: Speed = None,
    minutes: Annotated[float, typer.Option(min=0, help="End the live part when this many minutes have passed.")] = 7.0,
    window: Annotated[
        int,
        typer.Option(min=1, help="Live events within which users run side by side; each user's events stay in order."),
    ] = 2_000,
    report: Annotated[Path, typer.Option(help="Folder for report.json and report.html.")] = Path(),
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the folder of the run: logs, checkpoints, features.")
    ] = False,
    broker: Broker = None,
) -> None:
    """Run a dataset through all flows on a temporary stack, show live metrics, and write a report."""
    import signal

    from infra.demo.command import Options, locate_or_download
    from infra.demo.command import demo as run_demo
    from infra.demo.report import HTML, JSON
    from infra.demo.screen import Screen
    from infra.local.terminal import on_hangup
    from infra.output_files import check_writable
    from infra.settings import load

    check_writable(report / JSON, report / HTML)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    on_hangup(signal.default_int_handler)
    screen = Screen()
    try:
        data = locate_or_download(load(), events, titles, tuple(text or ()), rating_max, screen.print_line)
        options = Options(full, speed, minutes, window=window, keep=keep, report=report)
        run_demo(load(broker=broker), data, options, screen)
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        raise typer.Exit(130) from None


@app.command()
def produce(
    events: Events = None,
    titles: Titles = None,
    text: Text = None,
    rating_max: RatingMax = DEFAULT_RATING_MAX,
    last: Annotated[
        float, typer.Option(min=0.001, max=100, help="Produce only the last events, this many percent.")
    ] = 100,
    speed: Speed = None,
    rate: Annotated[
        float | None,
        typer.Option(min=1e-9, help="Events per second; default, without --speed: as fast as the flows process them."),
    ] = None,
) -> None:
    """Send a dataset into the running flows, and report how many records they took; exits 1 if they took no event."""
    from infra.cli.produce import print_accounts, produce_dataset
    from infra.demo.command import locate_or_download
    from infra.local.address_file import with_local_services
    from infra.progress import Reporter
    from infra.settings import load

    settings = with_local_services(load())
    settings.kafka_config()  # raises SettingsError before a large dataset is read
    data = locate_or_download(settings, events, titles, tuple(text or ()), rating_max, typer.echo)
    part = data.slice(int(len(data) * (1 - last / 100)))
    print_accounts(produce_dataset(settings, part, Reporter(), speed, rate), typer.echo)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show what each flow does, consumer lag, learner metrics and latency; exits with 1 if a flow does not run."""
    import json

    from infra.local.address_file import with_local_services
    from infra.local.supervisor import FLOWS
    from infra.monitor import status as monitor
    from infra.settings import load

    settings = with_local_services(load())
    found = monitor.status_and_version(settings)
    if as_json:
        typer.echo(json.dumps(monitor.as_json(*found), indent=2))
    else:
        monitor.print_status(*found)
    if settings.metrics_port and monitor.NOT_RUNNING in map(found[0].phase, FLOWS):
        raise typer.Exit(1)


@app.command()
def download() -> None:
    """Download a public dataset (MovieLens) for the demo and the experiments."""
    from infra.data.download import download as download_dataset
    from infra.settings import load

    result = download_dataset(load().data_dir)
    typer.echo(result.message, err=result.folder is None)
    raise typer.Exit(0 if result.folder else 1)


@app.command()
def recommend(
    user: UserId,
    events_since: Annotated[
        int, typer.Option(min=0, help="Number of events of the user since the list was written.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Show a user's list in Redis, with title names."""
    from infra.local.address_file import with_local_services
    from infra.operate import inspect
    from infra.settings import load

    inspect.print_recommendations(with_local_services(load()), user, events_since, as_json, typer.echo)


@app.command()
def launch(
    title: Annotated[str, typer.Option("--title", help="The name of the title.")],
    overview: Annotated[str, typer.Option(help="The description of its content.")] = "",
    genres: Annotated[str, typer.Option(help="Its genres, comma-separated.")] = "",
    year: Annotated[int | None, typer.Option(help="Its year of release.")] = None,
    title_id: Annotated[str | None, typer.Option("--id", help="Its id; default: derived from the name.")] = None,
    wait: Wait = 30,
) -> None:
    """Launch one title, and show the users whose lists it enters."""
    from infra.local.address_file import with_local_services
    from infra.operate import inspect
    from infra.settings import load
    from streaming.records import Launch

    listed = [genre.strip() for genre in genres.split(",") if genre.strip()]
    record = Launch(title=title_id or inspect.slug(title), name=title, genres=listed, overview=overview, year=year)
    inspect.launch_title(with_local_services(load()), record, wait, typer.echo)


@app.command()
def send_event(
    user: UserId,
    title: Annotated[str, typer.Argument(help="The title's id.")],
    action: Annotated[str, typer.Option(help="The action of the user.")] = "play",
    rating: Annotated[float | None, typer.Option(min=0, max=5, help="A rating; replaces the action.")] = None,
    wait: Wait = 30,
) -> None:
    """Send one event, and show how it changes the user's list."""
    import time

    from infra.local.address_file import with_local_services
    from infra.operate import inspect
    from infra.settings import load
    from streaming.records import Event

    event = Event(user=user, title=title, ts=round(time.time() * 1000), action=action, rating=rating)
    inspect.send_event(with_local_services(load()), event, wait, typer.echo)


for command in (check, *operations.COMMANDS, *evaluate.COMMANDS, *experiments.COMMANDS):
    app.command()(command)

if __name__ == "__main__":
    app()
