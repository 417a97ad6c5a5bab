"""The command line, `premiere`: each command is a thin function that imports what it needs when it runs.

So help comes at once, and no command pays for another's imports. Whatever is wrong with the world arrives here as a
PremiereError and leaves as one sentence on stderr and exit code 1; wrong usage is exit code 2; the rest is our own
mistake and keeps its traceback.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

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


@app.command()
def up() -> None:
    """Start a broker, a Redis (unless named) and all flows, until Ctrl-C."""
    from infra.settings import load
    from infra.up import up as run_up

    run_up(load())


@app.command()
def run(flow: Annotated[Literal["features", "titles", "learn", "publish"], typer.Argument(help="Which flow.")]) -> None:
    """Run one flow until SIGTERM or Ctrl-C; it then drains, saves its state and exits 0."""
    from infra.flows import run as run_flow
    from infra.settings import connected, load

    run_flow(flow, connected(load()))


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


@app.command()
def evaluate(
    events: Annotated[Path | None, typer.Option(help="Events: CSV or Parquet with user, item, ts.")] = None,
    titles: Annotated[Path | None, typer.Option(help="Titles: CSV or Parquet with item, title.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="Further columns of titles to embed.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report here, as JSON.")] = None,
    repeats: Annotated[bool, typer.Option("--repeats", help="People come back: do not leave out seen titles.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many events.")] = None,
) -> None:
    """Measure on a data set: rank each event, then learn from it; simple ways and ablations beside the model."""
    from infra.measure import run_evaluate
    from infra.settings import load

    run_evaluate(load(), events, titles, tuple(text or ()), report, repeats, limit)


if __name__ == "__main__":
    app()
