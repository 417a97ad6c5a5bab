"""The reports of the experiment commands (docs/experiments.md) as parts of the results."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from features.text_encoders import Encoder
from infra.data.datasets import Dataset
from infra.experiments import (
    coldstart,
    compare,
    flops,
    leave_one_out,
    multitask,
    multitask_report,
    scaling,
    scaling_report,
    staleness,
    staleness_report,
)
from infra.experiments.user_sequences import UserSequences
from infra.progress import Reporter
from infra.settings import load
from model.settings import LearnerSettings

SIZES_COMPARED: Final = (scaling.DEFAULT_SIZES[0], scaling.DEFAULT_SIZES[-1])

RunReport = Callable[[Any, Encoder, LearnerSettings, Reporter], dict[str, Any]]


@dataclass(frozen=True)
class ReportPart:
    """The report of one command."""

    title: str  # of its section
    limit: int | None  # default number of events; None: all
    dataset: str  # given, globo, or ml-1m (as user sequences)
    run: RunReport
    lines: Callable[[Mapping[str, Any]], Iterator[str]]
    draw: Callable[[Mapping[str, Any], Path], None]


def _scaling(data: Dataset, encode: Encoder, settings: LearnerSettings, progress: Reporter) -> dict[str, Any]:
    return scaling.report(data, encode, settings, progress)


def _compare(data: Dataset, encode: Encoder, settings: LearnerSettings, progress: Reporter) -> dict[str, Any]:
    """The smallest size of the sweep against the largest size."""
    return compare.report(data, encode, settings, SIZES_COMPARED, progress)


def _staleness(data: Dataset, encode: Encoder, settings: LearnerSettings, progress: Reporter) -> dict[str, Any]:
    return staleness.report(data, encode, settings, progress, staleness.SAMPLE_EVERY)


def _flops(data: Dataset, _encode: Encoder, settings: LearnerSettings, _progress: Reporter) -> dict[str, Any]:
    return flops.report(load().model_size, settings.sequence, len(data.titles))


def _leave_one_out(
    sequences: UserSequences, _encode: Encoder, settings: LearnerSettings, progress: Reporter
) -> dict[str, Any]:
    return leave_one_out.report(sequences, None, progress, settings=leave_one_out.EpochSettings(seed=settings.seed))


REPORT_PARTS: Final[dict[str, ReportPart]] = {
    "leave-one-out": ReportPart(
        "Leave-one-out evaluation on MovieLens-1M", None, "ml-1m",
        _leave_one_out, leave_one_out.lines, leave_one_out.draw,
    ),
    "scaling-movies": ReportPart(
        "Quality by model size: movies", 4_000, "given", _scaling, scaling_report.lines, scaling_report.draw
    ),
    "scaling-globo": ReportPart(
        "Quality by model size: news", 8_000, "globo", _scaling, scaling_report.lines, scaling_report.draw
    ),
    "compare": ReportPart(
        "The smallest model size against the largest", 8_000, "given", _compare, compare.lines, compare.draw
    ),
    "flops": ReportPart("FLOPs per training token", 1_000, "given", _flops, flops.lines, flops.draw),
    "staleness": ReportPart(
        "Quality by age of the list", 6_000, "given", _staleness, staleness_report.lines, staleness_report.draw
    ),
    "coldstart": ReportPart(
        "Cold-start quality by title embedding", 8_000, "given", coldstart.report, coldstart.lines, coldstart.draw
    ),
    "multitask": ReportPart(
        "One backbone for several tasks", 8_000, "given",
        multitask.report, multitask_report.lines, multitask_report.draw,
    ),
}  # fmt: skip
