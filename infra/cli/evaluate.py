"""The commands `evaluate` (prequential evaluation) and `leave-one-out`."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from infra.cli.options import (
    DEFAULT_RATING_MAX,
    Events,
    Figure,
    Limit,
    RatingMax,
    Repeats,
    Report,
    Text,
    Titles,
    load_dataset,
    print_progress,
    print_report,
)
from infra.output_files import check_writable

if TYPE_CHECKING:
    from model.metrics.ranking import PrequentialMetrics

PROGRESS_INTERVAL_S: Final = 5.0


class EvaluationProgress:
    """Prints the number of events, the estimated remaining time and the MRR of each variant, at intervals."""

    def __init__(self, interval: float = PROGRESS_INTERVAL_S) -> None:
        self._interval = interval  # seconds
        self._started = self._printed = time.monotonic()

    def __call__(self, done: int, total: int, rankings: "dict[str, PrequentialMetrics]") -> None:
        """Report that `done` of `total` events were processed."""
        now = time.monotonic()
        if now - self._printed < self._interval and done < total:
            return
        self._printed = now
        mrr = {name: metrics.report()["mrr"]["all"] for name, metrics in rankings.items()}
        values = "  ".join(f"{name} {value:.4f}" for name, value in mrr.items() if value is not None)
        remaining = (now - self._started) / max(done, 1) * (total - done)
        print_progress(f"{done:>9,} of {total:,}  {remaining:>5.0f} s left  {values}")


def evaluate(
    events: Events = None,
    titles: Titles = None,
    text: Text = None,
    rating_max: RatingMax = DEFAULT_RATING_MAX,
    report: Report = None,
    repeats: Repeats = False,
    limit: Limit = None,
    ranks: Annotated[
        Path | None, typer.Option(help="Write the rank of each scored event, by variant, to this CSV file.")
    ] = None,
) -> None:
    """Run a prequential (test-then-train) evaluation with baselines and ablations."""
    from features.text_encoders import load_encoder
    from infra.experiments import evaluate as evaluation
    from infra.learner_settings import learner_settings
    from infra.settings import load

    check_writable(report, ranks)
    settings = load()
    data = load_dataset(settings, events, titles, text or (), rating_max, limit)
    encode = load_encoder(settings.text_encoder)
    learner = learner_settings(settings, encode.width)
    learner = replace(learner, repeats=learner.repeats or repeats)
    with evaluation.RankFile(ranks) as rank_file:
        result = evaluation.evaluate(data, encode, learner, EvaluationProgress(), rank_file)
    print_report(evaluation, result, report, None)


def leave_one_out(
    events: Events = None,
    titles: Titles = None,
    text: Text = None,
    rating_max: RatingMax = DEFAULT_RATING_MAX,
    report: Report = None,
    limit: Limit = None,
    minutes: Annotated[float, typer.Option(min=0.01, help="Maximum training time in minutes.")] = 120,
    figure: Figure = None,
) -> None:
    """Evaluate the sequence model alone by the leave-one-out protocol of the literature."""
    from features.text_encoders import load_encoder
    from infra.experiments import leave_one_out as evaluation
    from infra.experiments import user_sequences
    from infra.settings import load

    check_writable(report, figure)
    settings = load()
    if events is not None:
        sequences = user_sequences.load(events, titles, text or (), limit, rating_max)
    else:
        sequences = user_sequences.from_dataset(load_dataset(settings, None, titles, text or (), rating_max, limit))
    encode = load_encoder(settings.text_encoder) if any(sequences.texts) else None
    epochs = evaluation.EpochSettings(max_seconds=60 * minutes, seed=settings.seed)
    found = evaluation.report(sequences, encode, print_progress, evaluation.SEQUENCE, epochs, settings.threads)
    print_report(evaluation, found, report, figure)


COMMANDS: Final[tuple[Callable[..., None], ...]] = (evaluate, leave_one_out)
