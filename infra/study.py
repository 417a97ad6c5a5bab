"""The commands for those who ask what the model costs and what it is worth."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

Report = Annotated[Path | None, typer.Option(help="Write the report here, as JSON.")]
Figure = Annotated[Path | None, typer.Option(help="Draw it here, as PNG.")]


def flops(
    titles: Annotated[int, typer.Option(min=1, help="Titles of the catalogue, for the settings in force.")] = 10_000,
    report: Report = None,
    figure: Figure = None,
) -> None:
    """Show what a training token costs: by the paper's formula, by this network's own, and counted in a step."""
    from infra import flops as costs
    from infra.learning import learner_settings, numerics
    from infra.settings import load

    settings = load()
    numerics(settings.threads)
    found = costs.report(settings.model, learner_settings(settings).sequence, titles)
    for line in costs.lines(found):
        typer.echo(line)
    if report is not None:
        costs.write(found, report)
    if figure is not None:
        costs.draw(found, figure)


COMMANDS: Final[tuple[Callable[..., None], ...]] = (flops,)
