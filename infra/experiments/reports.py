"""The studies of docs/questions.md as parts of the evidence: what the commands tell, their words and their figures."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from features.text_encoders import Encoder
from infra.data.datasets import DataSet
from infra.experiments import coldstart, compare, flops, leave_one_out, multitask, scaling, scaling_report, staleness
from infra.experiments.harness import Say
from infra.experiments.user_sequences import Orders
from infra.settings import load
from model.learner import LearnerSettings

ENDS: Final = (scaling.DEFAULT[0], scaling.DEFAULT[-1])

Find = Callable[[Any, Encoder, LearnerSettings, Say], dict[str, Any]]


@dataclass(frozen=True)
class ReportPart:
    """title: of its section · limit: events unless asked otherwise · of: whose data it asks (given, globo, ml-1m's
    orders) · find, lines, draw: the study."""

    title: str
    limit: int | None
    of: str
    find: Find
    lines: Callable[[Mapping[str, Any]], Iterator[str]]
    draw: Callable[[Mapping[str, Any], Path], None]


def _sizes(data: DataSet, encode: Encoder, settings: LearnerSettings, say: Say) -> dict[str, Any]:
    return scaling.report(data, encode, settings, say)


def _ends(data: DataSet, encode: Encoder, settings: LearnerSettings, say: Say) -> dict[str, Any]:
    """The smallest size of the sweep against the largest."""
    return compare.report(data, encode, settings, ENDS, say)


def _ages(data: DataSet, encode: Encoder, settings: LearnerSettings, say: Say) -> dict[str, Any]:
    return staleness.report(data, encode, settings, say, staleness.EVERY)


def _costs(data: DataSet, _encode: Encoder, settings: LearnerSettings, _say: Say) -> dict[str, Any]:
    return flops.report(load().model, settings.sequence, len(data.titles))


def _orders(orders: Orders, _encode: Encoder, settings: LearnerSettings, say: Say) -> dict[str, Any]:
    return leave_one_out.report(orders, None, say, settings=leave_one_out.EpochSettings(seed=settings.seed))


REPORT_PARTS: Final[dict[str, ReportPart]] = {
    "leave-one-out": ReportPart(
        "Is it as good as the published models?", None, "ml-1m", _orders, leave_one_out.lines, leave_one_out.draw
    ),
    "scaling-films": ReportPart(
        "When does a bigger model pay? Films", 4_000, "given", _sizes, scaling_report.lines, scaling_report.draw
    ),
    "scaling-globo": ReportPart(
        "When does a bigger model pay? News", 8_000, "globo", _sizes, scaling_report.lines, scaling_report.draw
    ),
    "shadow": ReportPart("The smallest size against the largest", 8_000, "given", _ends, compare.lines, compare.draw),
    "flops": ReportPart("What does a training token cost?", 1_000, "given", _costs, flops.lines, flops.draw),
    "staleness": ReportPart(
        "What does a list lose while it lies in the cache?", 6_000, "given", _ages, staleness.lines, staleness.draw
    ),
    "coldstart": ReportPart(
        "What does it do for a title that nobody has watched?", 8_000, "given", coldstart.report, coldstart.lines,
        coldstart.draw,
    ),
    "tasks": ReportPart(
        "Does one backbone serve several tasks?", 8_000, "given", multitask.report, multitask.lines, multitask.draw
    ),
}  # fmt: skip
