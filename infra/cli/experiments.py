"""The commands for those who ask what the model costs and what it is worth."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

if TYPE_CHECKING:
    from features.text_encoders import Encoder
    from infra.data.datasets import DataSet
    from model.learner import LearnerSettings

Report = Annotated[Path | None, typer.Option(help="Write the report here, as JSON.")]
Figure = Annotated[Path | None, typer.Option(help="Draw it here, as PNG.")]
Events = Annotated[Path | None, typer.Option(help="Events: CSV or Parquet with user, item, ts (unix seconds).")]
Titles = Annotated[Path | None, typer.Option(help="Titles: CSV or Parquet with item, title.")]
Text = Annotated[list[str] | None, typer.Option(help="Further columns of the titles to embed.")]
Repeats = Annotated[bool, typer.Option("--repeats", help="People come back: do not leave out seen titles.")]
Protocol = Literal["prequential", "leave-one-out"]
Limit = Annotated[int | None, typer.Option(min=10, help="Only the first so many events.")]


def evaluate(
    events: Events = None,
    titles: Titles = None,
    text: Text = None,
    report: Report = None,
    repeats: Repeats = False,
    limit: Limit = None,
    protocol: Annotated[Protocol, typer.Option(help="In the stream, or as the literature does.")] = "prequential",
    minutes: Annotated[float, typer.Option(min=0.01, help="Leave-one-out: training ends after so many.")] = 120,
    figure: Annotated[Path | None, typer.Option(help="Leave-one-out: draw its curve here, as PNG.")] = None,
    ranks: Annotated[Path | None, typer.Option(help="Write each scored event's rank by variant here, as CSV.")] = None,
) -> None:
    """Measure on a data set: rank each event, then learn from it; simple ways and ablations beside the model."""
    from infra.settings import load

    alone = protocol == "leave-one-out"
    if alone and repeats:
        raise typer.BadParameter("leave-one-out takes each title once: leave out --repeats.")
    if figure is not None and not alone:
        raise typer.BadParameter("only --protocol leave-one-out draws a --figure.")
    if alone:
        from infra.cli import evaluate as measure
        from infra.experiments import leave_one_out

        found = measure.leave_one_out(load(), events, titles, tuple(text or ()), limit, minutes, _tell)
        _deliver(leave_one_out, found, report, figure)
        return
    from infra.cli.evaluate import run_evaluate

    run_evaluate(load(), events, titles, tuple(text or ()), report, repeats, limit, ranks)


def flops(
    titles: Annotated[int, typer.Option(min=1, help="Titles of the catalogue, for the settings in force.")] = 10_000,
    report: Report = None,
    figure: Figure = None,
) -> None:
    """Show what a training token costs: by the paper's formula, by this network's own, and counted in a step."""
    from infra.experiments import flops as costs
    from infra.run.learn import learner_settings, numerics
    from infra.settings import load

    settings = load()
    numerics(settings.threads)
    found = costs.report(settings.model, learner_settings(settings).sequence, titles)
    _deliver(costs, found, report, figure)


def _obtained(
    events: Path | None, titles: Path | None, text: Sequence[str], repeats: bool, limit: int | None
) -> "tuple[DataSet, Encoder, LearnerSettings]":
    """The data, the encoder and the settings in force."""
    from features.text_encoders import load_encoder
    from infra.cli.evaluate import chosen
    from infra.run.learn import learner_settings
    from infra.settings import load

    settings = load()
    model = learner_settings(settings)
    model = replace(model, repeats=model.repeats or repeats)
    return chosen(settings, events, titles, text, limit), load_encoder(settings.text_encoder), model


def _deliver(study: ModuleType, found: dict[str, Any], report: Path | None, figure: Path | None) -> None:
    """A study's report on the screen and, where wanted, in files."""
    from infra.experiments.evaluate import write

    for line in study.lines(found):
        typer.echo(line)
    if report is not None:
        write(found, report)
    if figure is not None:
        study.draw(found, figure)


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def scaling(
    events: Events = None,
    titles: Titles = None,
    text: Text = None,
    repeats: Repeats = False,
    limit: Limit = None,
    size: Annotated[
        list[str] | None, typer.Option(help="WIDTHxBLOCKS, as in 64x2, or a size of PREMIERE_MODEL; at least five.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each size, which differ in their seed.")] = 3,
    report: Report = None,
    figure: Figure = None,
) -> None:
    """Show when a bigger model pays: MRR by the size of the backbone and task, two laws, and what they say in words."""
    from infra.experiments import scaling as study
    from infra.experiments import scaling_report

    found = study.report(*_obtained(events, titles, text or (), repeats, limit), _tell, size or (), seeds)
    _deliver(scaling_report, found, report, figure)


def coldstart(
    events: Events = None,
    titles: Titles = None,
    text: Text = None,
    repeats: Repeats = False,
    limit: Limit = None,
    mask: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of ids masked; measured on the first fifth unless given.")
    ] = None,
    report: Report = None,
    figure: Figure = None,
) -> None:
    """Show how new titles are ranked, by what stands for a title: its id, its text, both, both with ids masked."""
    from infra.experiments import coldstart as cold

    found = cold.report(*_obtained(events, titles, text or (), repeats, limit), _tell, mask)
    _deliver(cold, found, report, figure)


def staleness(
    events: Events = None,
    titles: Titles = None,
    text: Text = None,
    repeats: Repeats = False,
    limit: Limit = None,
    every: Annotated[
        int | None, typer.Option(min=1, help="Ask one event in so many for final lists and by hours; 8 unless given.")
    ] = None,
    report: Report = None,
    figure: Figure = None,
) -> None:
    """Show how much a list loses while it lies in the cache, by what the model is trained to predict."""
    from infra.experiments import staleness as stale

    found = stale.report(*_obtained(events, titles, text or (), repeats, limit), _tell, every or stale.EVERY)
    _deliver(stale, found, report, figure)


Side = Annotated[str, typer.Argument(help="as-set, a size (cpu, 2m, 96x3, ...), path.of.a.setting=value; by commas.")]


def shadow(
    a: Side,
    b: Side,
    events: Events = None,
    titles: Titles = None,
    text: Text = None,
    repeats: Repeats = False,
    limit: Limit = None,
    days: Annotated[float | None, typer.Option(min=0.001, help="Test on the last so many days.")] = None,
    report: Report = None,
    figure: Figure = None,
) -> None:
    """Compare two settings of the model, A and B, side by side over one stream, and say whether one is better."""
    from infra.experiments import compare as test

    found = test.report(*_obtained(events, titles, text or (), repeats, limit), (a, b), _tell, days)
    _deliver(test, found, report, figure)


def tasks(
    events: Events = None,
    titles: Titles = None,
    text: Text = None,
    repeats: Repeats = False,
    limit: Limit = None,
    weight: Annotated[
        float | None,
        typer.Option(min=0, help="What each further task's loss counts beside the next title's, which counts 1."),
    ] = None,
    report: Report = None,
    figure: Figure = None,
) -> None:
    """Show whether one backbone serves several tasks: the next title, what the viewer does with it, its genre."""
    from infra.experiments import multitask as study

    found = study.report(*_obtained(events, titles, text or (), repeats, limit), _tell, weight)
    _deliver(study, found, report, figure)


COMMANDS: Final[tuple[Callable[..., None], ...]] = (evaluate, flops, scaling, coldstart, staleness, shadow, tasks)
