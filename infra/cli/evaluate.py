"""The commands `evaluate` (prequential evaluation) and `leave-one-out`."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from infra.cli.options import ExperimentOptions, Inputs, experiment_command
from infra.progress import Reporter

if TYPE_CHECKING:
    from features.text_encoders import Encoder
    from infra.experiments.user_sequences import UserSequences
    from infra.settings import Settings


@experiment_command(without="figure")
def evaluate(
    inputs: Inputs,
    ranks: Annotated[
        Path | None, typer.Option(help="Write the rank of each scored event, by variant, to this CSV file.")
    ] = None,
) -> tuple[ModuleType, dict[str, Any]]:
    """Run a prequential (test-then-train) evaluation with baselines and ablations."""
    from infra.experiments import evaluate as evaluation

    with evaluation.RankFile(ranks) as rank_file:
        return evaluation, evaluation.evaluate(*inputs, Reporter(), rank_file)


class SequenceInputs(NamedTuple):
    """The users' sequences, the text encoder if there are texts, and the settings."""

    sequences: "UserSequences"
    encode: "Encoder | None"
    settings: "Settings"


def load_sequences(options: ExperimentOptions) -> SequenceInputs:
    """Read the users' sequences from the given files, or from the dataset of the other commands."""
    from features.text_encoders import load_encoder
    from infra.experiments import user_sequences
    from infra.settings import load

    settings, files = load(), (options.titles, options.text or (), options.limit, options.rating_max)
    if options.events is None:
        sequences = user_sequences.from_dataset(options.load_dataset(settings))
    else:
        sequences = user_sequences.load(options.events, *files)
    encode = load_encoder(settings.text_encoder) if any(sequences.texts) else None
    return SequenceInputs(sequences, encode, settings)


@experiment_command(load_sequences, without="repeats")
def leave_one_out(
    inputs: SequenceInputs,
    minutes: Annotated[float, typer.Option(min=0.01, help="Maximum training time in minutes.")] = 120,
) -> tuple[ModuleType, dict[str, Any]]:
    """Evaluate the sequence model alone by the leave-one-out protocol of the literature."""
    from infra.experiments import leave_one_out as evaluation

    sequences, encode, settings = inputs
    epochs = evaluation.EpochSettings(max_seconds=60 * minutes, seed=settings.seed)
    found = evaluation.report(sequences, encode, Reporter(), evaluation.SEQUENCE, epochs, settings.threads)
    return evaluation, found


COMMANDS: Final[tuple[Callable[..., None], ...]] = (evaluate, leave_one_out)
