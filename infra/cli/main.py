"""The command line, `premiere`: each command is a thin function that imports what it needs when it runs.

So help comes at once, and no command pays for another's imports. Whatever is wrong with the world arrives here as a
PremiereError and leaves as one sentence on stderr and exit code 1; wrong usage is exit code 2; the rest is our own
mistake and keeps its traceback.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from infra.cli import experiments, operations
from infra.cli.experiments import Events, Text, Titles
from infra.errors import PremiereError


class _OneSentence(TyperGroup):
    """Commands whose expected errors are one sentence."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except PremiereError as error:
            typer.echo(f"premiere: {error}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_OneSentence,
    help="A recommender that learns while it serves: events in, refreshed predictions out, seconds later.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


Broker = Annotated[
    Literal["embedded", "apache"] | None, typer.Option(help="Which broker to start; as set unless given.")
]


@app.command()
def up(broker: Broker = None) -> None:
    """Start a broker, a Redis (unless named) and all flows, until Ctrl-C."""
    from infra.local.up import up as run_up
    from infra.settings import load

    run_up(load(broker=broker))


@app.command()
def run(
    flow: Annotated[Literal["features", "titles", "learn", "publish"], typer.Argument(help="Which flow.")],
    workers: Annotated[int | None, typer.Option(min=1, max=64, help="Processes; as set unless given.")] = None,
    process: Annotated[int | None, typer.Option(min=0, help="Be only this one of them, counted from 0.")] = None,
    addresses: Annotated[str, typer.Option(help="All workers' host:port, by commas (features, titles).")] = "",
) -> None:
    """Run one flow until SIGTERM or Ctrl-C; it then drains, saves its state and exits 0."""
    from infra.run.worker_group import start
    from infra.settings import connected, load

    start(flow, connected(load()), workers, process, tuple(filter(None, addresses.split(","))))


@app.command()
def topics(create: Annotated[bool, typer.Option("--create", help="Create what is missing first.")] = False) -> None:
    """List the project's topics and their partitions."""
    from infra import topics as kafka_topics
    from infra.settings import connected, load
    from streaming.topics import topics as project_topics

    settings = connected(load())
    wanted = project_topics(settings.event_partitions)
    if create:
        kafka_topics.create(settings.kafka(), wanted)
    found = kafka_topics.partitions(settings.kafka())
    for topic in wanted:
        typer.echo(f"{topic.name:<16} {found.get(topic.name, 'missing')}")


@app.command()
def settings(table: Annotated[bool, typer.Option("--table", help="All settings with their meanings.")] = False) -> None:
    """Show the settings in force, secrets masked."""
    from infra.settings import connected, load, settings_table, shown

    if table:
        typer.echo(settings_table(), nl=False)
        return
    for name, value in shown(connected(load())).items():
        typer.echo(f"{name:<32} {value}".rstrip())


Speed = Annotated[float | None, typer.Option(min=1e-9, help="So many times the data's own pace.")]


@app.command()
def demo(
    events: Events = None,
    titles: Titles = None,
    text: Text = None,
    full: Annotated[bool, typer.Option("--full", help="All of the data, to its end, however long it takes.")] = False,
    speed: Speed = None,
    minutes: Annotated[float, typer.Option(min=0, help="End the live part after so many in all.")] = 7.0,
    report: Annotated[Path, typer.Option(help="Folder for report.json and report.html.")] = Path(),
    keep: Annotated[bool, typer.Option("--keep", help="Keep what the run wrote: logs, checkpoints, features.")] = False,
    broker: Broker = None,
) -> None:
    """Watch a recommender learn: a data set through the whole loop, on a stack of its own, with a report."""
    import signal

    from infra.demo.command import Options, obtain
    from infra.demo.command import demo as run_demo
    from infra.demo.screen import Screen
    from infra.settings import load

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    screen = Screen()
    try:
        data = obtain(load(), events, titles, tuple(text or ()), screen.say)
        run_demo(load(broker=broker), data, Options(full, speed, minutes, keep=keep, report=report), screen)
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        raise typer.Exit(130) from None


@app.command()
def replay(
    events: Events = None,
    titles: Titles = None,
    text: Text = None,
    last: Annotated[float, typer.Option(min=0.001, max=100, help="Only the last so many percent of the events.")] = 100,
    speed: Speed = None,
    rate: Annotated[float | None, typer.Option(min=1e-9, help="So many events a second.")] = None,
) -> None:
    """Play a data set into the running loop; without a pace, as fast as it learns."""
    from infra.cli.produce import play
    from infra.demo.command import obtain
    from infra.settings import connected, load

    settings = connected(load())
    settings.kafka()  # before the data is read: without a broker there is nothing to do
    data = obtain(settings, events, titles, tuple(text or ()), typer.echo)
    count = play(settings, data.slice(int(len(data) * (1 - last / 100))), typer.echo, speed, rate)
    typer.echo(f"Replayed {count:,} events of {data.name}.")


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Show how far each flow is, what the learner does, and how fresh what it writes is."""
    import json

    from infra.monitor import status as loop
    from infra.settings import connected, load

    found = loop.status(connected(load()))
    if as_json:
        typer.echo(json.dumps(loop.as_json(*found), indent=2))
    else:
        loop.show(*found)


@app.command()
def data() -> None:
    """Fetch a real data set from where one can be reached, for the demo."""
    from infra.data.download import fetch
    from infra.settings import load

    fetched = fetch(load().data_dir)
    typer.echo(fetched.said, err=fetched.folder is None)
    raise typer.Exit(0 if fetched.folder else 1)


@app.command()
def recommend(
    user: Annotated[str, typer.Argument(help="The viewer's id.")],
    events_since: Annotated[int, typer.Option(min=0, help="Events of the viewer since the list was written.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show what a viewer is served: the list in Redis, by names."""
    from infra.operate import inspect
    from infra.settings import connected, load

    inspect.recommend(connected(load()), user, events_since, as_json, typer.echo)


@app.command()
def launch(
    title: Annotated[str, typer.Option("--title", help="The title's name.")],
    overview: Annotated[str, typer.Option(help="What it is about.")] = "",
    genres: Annotated[str, typer.Option(help="Its genres, separated by commas.")] = "",
    year: Annotated[int | None, typer.Option(help="Its year.")] = None,
    name: Annotated[str | None, typer.Option("--id", help="Its id; made of the name unless given.")] = None,
    wait: Annotated[float, typer.Option(min=0.1, help="Seconds to follow it at most.")] = 30,
) -> None:
    """Launch one title, and follow it into the lists of those whom it suits."""
    from infra.operate import inspect
    from infra.settings import connected, load
    from streaming.records import Launch

    listed = [genre.strip() for genre in genres.split(",") if genre.strip()]
    told = Launch(title=name or inspect.slug(title), name=title, genres=listed, overview=overview, year=year)
    inspect.launch(connected(load()), told, wait, typer.echo)


@app.command()
def emit(
    user: Annotated[str, typer.Argument(help="The viewer's id.")],
    title: Annotated[str, typer.Argument(help="The title's id.")],
    action: Annotated[str, typer.Option(help="What the viewer did.")] = "play",
    rating: Annotated[float | None, typer.Option(min=0, max=5, help="In place of an action.")] = None,
    wait: Annotated[float, typer.Option(min=0.1, help="Seconds to follow it at most.")] = 30,
) -> None:
    """Send one event, and show how it changes its viewer's list."""
    import time

    from infra.operate import inspect
    from infra.settings import connected, load
    from streaming.records import Event

    event = Event(user=user, title=title, ts=round(time.time() * 1000), action=action, rating=rating)
    inspect.emit(connected(load()), event, wait, typer.echo)


for command in (*operations.COMMANDS, *experiments.COMMANDS):
    app.command()(command)

if __name__ == "__main__":
    app()
