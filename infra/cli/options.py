"""Options that several commands share, and a decorator for the commands that run an experiment on a dataset."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from infra.output_files import check_writable, output_errors
from streaming.records import MAX_ID_BYTES

if TYPE_CHECKING:
    from features.text_encoders import Encoder
    from infra.data.datasets import Dataset
    from infra.settings import Settings
    from model.settings import LearnerSettings


def _checked_user_id(value: str) -> str:
    if not 1 <= len(value.encode()) <= MAX_ID_BYTES:
        raise typer.BadParameter(f"a user id has 1 to {MAX_ID_BYTES} bytes")
    return value


Events = Annotated[
    Path | None, typer.Option(help="Events: a CSV or Parquet file with the columns user, item and ts (Unix seconds).")
]
Titles = Annotated[Path | None, typer.Option(help="Titles: a CSV or Parquet file with the columns item and title.")]
Text = Annotated[list[str] | None, typer.Option(help="Additional column of the titles file to embed; can be repeated.")]
RatingMax = Annotated[
    float, typer.Option(min=1e-9, help="Highest rating of the files' scale, which begins at 0; converted to 0 to 5.")
]
Repeats = Annotated[bool, typer.Option("--repeats", help="Users repeat titles: rank seen titles too.")]
Limit = Annotated[int | None, typer.Option(min=10, help="Use only this number of events, from the beginning.")]
Report = Annotated[Path | None, typer.Option(help="Write the report to this JSON file.")]
Figure = Annotated[Path | None, typer.Option(help="Draw the results to this PNG file.")]
UserId = Annotated[str, typer.Argument(help="The user's id.", callback=_checked_user_id)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

DEFAULT_RATING_MAX: Final = 5.0


class Inputs(NamedTuple):
    """The data, the text encoder and the learner's settings of an experiment."""

    data: "Dataset"
    encode: "Encoder"
    settings: "LearnerSettings"


@dataclass(frozen=True)
class ExperimentOptions:
    """The options that all experiments on a dataset have."""

    events: Events = None
    titles: Titles = None
    text: Text = None
    rating_max: RatingMax = DEFAULT_RATING_MAX
    repeats: Repeats = False
    limit: Limit = None
    report: Report = None
    figure: Figure = None

    def load_inputs(self) -> Inputs:
        """Read the settings, the dataset and the encoder. Raises PremiereError."""
        from features.text_encoders import load_encoder
        from infra.learner_settings import learner_settings
        from infra.settings import load

        settings = load()
        encode = load_encoder(settings.text_encoder)
        learner = learner_settings(settings, encode.width)
        learner = replace(learner, repeats=learner.repeats or self.repeats)
        return Inputs(self.load_dataset(settings), encode, learner)

    def load_dataset(self, settings: "Settings") -> "Dataset":
        """The dataset, or its first `limit` events. Raises PremiereError."""
        return load_dataset(settings, self.events, self.titles, self.text or (), self.rating_max, self.limit)


Experiment = Callable[..., tuple[ModuleType, dict[str, Any]]]


def experiment_command(
    load: Callable[[ExperimentOptions], object] = ExperimentOptions.load_inputs, without: str = ""
) -> Callable[[Experiment], Callable[..., None]]:
    """Turn `experiment(inputs, ...)` into a command that also has the options of `ExperimentOptions`, except `without`.

    `load` reads the inputs by these options. The experiment returns its report, and the module with the functions
    `lines` and `draw` that print and draw it.
    """
    shared = {name: one for name, one in inspect.signature(ExperimentOptions).parameters.items() if name != without}

    def decorate(experiment: Experiment) -> Callable[..., None]:
        own = list(inspect.signature(experiment).parameters.values())[1:]

        @wraps(experiment)
        def command(**values: Any) -> None:
            options = ExperimentOptions(**{name: values.pop(name) for name in shared})
            results = [value for value in values.values() if isinstance(value, Path)]  # an experiment reads no file
            check_writable(options.report, options.figure, *results)
            module, report = experiment(load(options), **values)
            print_report(module, report, options.report, options.figure)

        arguments = [parameter for parameter in own if parameter.default is parameter.empty]
        parameters = [*arguments, *shared.values(), *(parameter for parameter in own if parameter not in arguments)]
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        )
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def load_dataset(
    settings: "Settings",
    events: Path | None,
    titles: Path | None,
    text: Sequence[str],
    rating_max: float,
    limit: int | None,
) -> "Dataset":
    """The dataset of a command, or its first `limit` events. Raises PremiereError."""
    from infra.data.locate import locate

    where = {"data_dir": settings.data_dir, "folder": settings.data, "seed": settings.seed}
    data = locate(events, titles, text, **where, rating_max=rating_max)  # type: ignore[arg-type]
    return data if limit is None else data.slice(0, limit)


def print_report(module: ModuleType, report: dict[str, Any], file: Path | None, figure: Path | None) -> None:
    """Print an experiment's report, and write it to files if they are given."""
    from infra.experiments.evaluate import write

    for line in module.lines(report):
        typer.echo(line)
    if file is not None:
        with output_errors(file):
            write(report, file)
    if figure is not None:
        with output_errors(figure):
            module.draw(report, figure)
