"""The commands that run an experiment: what a model costs, and what its parts contribute."""

from collections.abc import Callable
from types import ModuleType
from typing import Annotated, Any, Final

import typer

from infra.cli.options import Figure, Inputs, Report, experiment_command, print_report
from infra.output_files import check_writable
from infra.progress import Reporter

Result = tuple[ModuleType, dict[str, Any]]  # the module that prints and draws the report, and the report
Variant = Annotated[
    str, typer.Argument(help="Comma-separated: current, a model size (cpu, 2m, 96x3, ...), backbone.width=96.")
]


def flops(
    titles: Annotated[int, typer.Option(min=1, help="Catalog size, in titles.")] = 10_000,
    report: Report = None,
    figure: Figure = None,
) -> None:
    """Show the FLOPs per training token: by the paper's formula, by this network's formula, and measured."""
    from infra.experiments import flops as experiment
    from infra.learner_settings import learner_settings, set_threads
    from infra.settings import load

    check_writable(report, figure)
    settings = load()
    set_threads(settings.threads)
    found = experiment.report(settings.model_size, learner_settings(settings).sequence, titles)
    print_report(experiment, found, report, figure)


@experiment_command()
def scaling(
    inputs: Inputs,
    size: Annotated[
        list[str] | None,
        typer.Option(help="WIDTHxBLOCKS (for example 64x2) or a value of PREMIERE_MODEL_SIZE; at least five."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each size, with different seeds.")] = 3,
) -> Result:
    """Measure MRR by backbone size, and fit two scaling laws."""
    from infra.experiments import scaling as experiment
    from infra.experiments import scaling_report

    return scaling_report, experiment.report(*inputs, Reporter(), size or (), seeds)


@experiment_command()
def coldstart(
    inputs: Inputs,
    mask: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of masked ids; default: measured on the first fifth of the data."),
    ] = None,
) -> Result:
    """Compare cold-start quality of ID-only, text-only, combined and ID-masked title embeddings."""
    from infra.experiments import coldstart as experiment

    return experiment, experiment.report(*inputs, Reporter(), mask)


@experiment_command()
def staleness(
    inputs: Inputs,
    every: Annotated[
        int | None, typer.Option(min=1, help="Sample one of this many events for the re-ranked lists; default: 8.")
    ] = None,
) -> Result:
    """Measure how list quality declines with the age of a list, by the horizons that the model is trained for."""
    from infra.experiments import staleness as experiment
    from infra.experiments import staleness_report

    return staleness_report, experiment.report(*inputs, Reporter(), every or experiment.SAMPLE_EVERY)


@experiment_command()
def compare(
    inputs: Inputs,
    a: Variant,
    b: Variant,
    days: Annotated[float | None, typer.Option(min=0.001, help="Test on the last days only; this many.")] = None,
) -> Result:
    """Compare two model settings, A and B, on the same stream, with confidence intervals."""
    from infra.experiments import compare as experiment

    experiment.refuse_equal_sides((a, b), inputs.settings)
    return experiment, experiment.report(*inputs, (a, b), Reporter(), days)


@experiment_command()
def multitask(
    inputs: Inputs,
    weight: Annotated[
        float | None, typer.Option(min=0, help="Weight of each additional task's loss; the next title has weight 1.")
    ] = None,
) -> Result:
    """Compare one backbone for several tasks (next title, action, genre) with one backbone for each task."""
    from infra.experiments import multitask as experiment
    from infra.experiments import multitask_report

    return multitask_report, experiment.report(*inputs, Reporter(), weight)


COMMANDS: Final[tuple[Callable[..., None], ...]] = (flops, scaling, coldstart, staleness, compare, multitask)
