"""What measuring commands share, how they find the data, and the command `evaluate`: it shows its progress, prints and
writes the report."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from infra.settings import Settings

if TYPE_CHECKING:
    from infra.data.datasets import DataSet

EVERY: Final = 5.0  # seconds between two lines of progress


def chosen(
    settings: Settings, events: Path | None, titles: Path | None, text: Sequence[str], limit: int | None
) -> "DataSet":
    """The data that a command is to measure on; `limit` takes the first so many events. Raises PremiereError where
    they cannot be read."""
    from infra.data.locate import find

    data = find(events, titles, text, data_dir=settings.data_dir, folder=settings.data, seed=settings.seed)
    return data if limit is None else data.slice(0, limit)


def leave_one_out(
    settings: Settings,
    events: Path | None,
    titles: Path | None,
    text: Sequence[str],
    limit: int | None,
    minutes: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The report of the literature's protocol: on the given file in its own order, else on the set that is found; texts
    are read where titles have some; `limit` takes the first so many rows. Raises PremiereError."""
    from features.text_encoders import load_encoder
    from infra.experiments import leave_one_out as loo
    from infra.experiments import user_sequences

    if events is not None:
        chosen_orders = user_sequences.load(events, titles, text, limit)
    else:
        chosen_orders = user_sequences.of(chosen(settings, events, titles, text, limit))
    encode = load_encoder(settings.text_encoder) if any(chosen_orders.texts) else None
    epochs = loo.EpochSettings(seconds=60 * minutes, seed=settings.seed)
    return loo.report(chosen_orders, encode, say, loo.SEQUENCE, epochs, settings.threads)


def run_evaluate(
    settings: Settings,
    events: Path | None,
    titles: Path | None,
    text: tuple[str, ...],
    report: Path | None,
    repeats: bool,
    limit: int | None,
    ranks: Path | None,
) -> None:
    """Evaluate and print; `ranks` is a CSV file of each scored event's rank by variant. Raises PremiereError where the
    data cannot be read."""
    from features.text_encoders import load_encoder
    from infra.experiments import evaluate
    from infra.run.learn import learner_settings
    from model.metrics.ranking import Prequential

    data = chosen(settings, events, titles, text, limit)
    began = shown = time.monotonic()

    def progress(done: int, whole: int, rankings: dict[str, Prequential]) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown < EVERY and done < whole:
            return
        shown = now
        mrr = {name: ranking.report()["mrr"]["all"] for name, ranking in rankings.items()}
        known = "  ".join(f"{name} {value:.4f}" for name, value in mrr.items() if value is not None)
        left = (now - began) / max(done, 1) * (whole - done)
        typer.echo(f"{done:>9,} of {whole:,}  {left:>5.0f} s left  {known}", err=True)

    model = learner_settings(settings)
    model = replace(model, repeats=model.repeats or repeats)
    with evaluate.RankFile(ranks) as each:
        result = evaluate.evaluate(data, load_encoder(settings.text_encoder), model, progress, each)
    for line in evaluate.lines(result):
        typer.echo(line)
    if report is not None:
        evaluate.write(result, report)
