"""`premiere compare A B`: run two settings of the model over one stream and say whether one of them is better.

Each side has a learner of its own, because a setting may concern the stream state too. Both read the same
micro-batches, rank the titles before each event, and keep learning during the test, as two live services would.
With `days`, the last days of the stream are the test, and everything before is learned without being scored, as in the
paper's one-week shadow test. The verdict is that of the final lists over all events. It follows from the paired
confidence interval over users.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import ValidationError

from features.text_encoders import Encoder
from infra.charts import COLORS, SERIES_COLORS, figure
from infra.data.datasets import Dataset
from infra.errors import SettingsError
from infra.experiments.backbone_ranks import BACKBONE_ONLY, FINAL_LISTS, ORDER_LABELS, BackboneRanks, recorded_name
from infra.experiments.harness import ScoredEvents, report_header, require_scored, run_prequential
from infra.experiments.prequential import WARMUP_SHARE
from infra.experiments.scaling import parse_size, with_size
from infra.experiments.verdicts import BETTER, INCONCLUSIVE, MIN_USERS, WORSE, format_ci, format_size, verdict
from infra.learner_settings import set_threads
from infra.model_settings import with_setting
from infra.progress import Reporter
from infra.settings_errors import plain_reason
from model.learner import Learner
from model.pipeline import new_pipeline
from model.setting_paths import MODEL_GROUPS, setting_fields
from model.settings import PRESETS, LearnerSettings, preset

CURRENT: Final = "current"  # the settings in force
DAY_MS: Final = 86_400_000
SIDES: Final = ("A", "B")
ORDERS: Final = (FINAL_LISTS, BACKBONE_ONLY)


def parse_settings(text: str, settings: LearnerSettings) -> LearnerSettings:
    """Settings from comma-separated parts: `current`, a model size, WIDTHxBLOCKS, or `backbone.width=96` as in
    premiere.toml. A list of values stands in brackets: `ranker.hidden=[64,32]`. Raises SettingsError."""
    names = set[str]()
    for word in re.split(r",(?![^\[]*\])", text):
        name, equals, value = word.strip().partition("=")
        if name in names:
            raise SettingsError(f"{name} is given twice in {text!r}.")
        names.add(name)
        if equals:
            settings = _with_value(settings, name, value)
        elif name in PRESETS:
            network = settings.sequence.network
            sized = replace(preset(name, network.horizons), max_history=network.max_history)
            settings = replace(settings, sequence=replace(settings.sequence, network=sized))
        elif re.fullmatch(r"\d+x\d+", name):
            settings = with_size(settings, parse_size(name))
        elif name != CURRENT:
            sizes = ", ".join(PRESETS)
            raise SettingsError(
                f"{name!r} is not {CURRENT!r}, a size ({sizes}, 96x3) or a setting such as optimizer.lr=0.001."
            )
    return settings


def _with_value(settings: LearnerSettings, name: str, value: str) -> LearnerSettings:
    try:
        return with_setting(settings, name, value)
    except KeyError:
        close = get_close_matches(name, [one.path for one in setting_fields(MODEL_GROUPS) if not one.info.follows], 1)
        remedy = f"did you mean {close[0]}?" if close else "name a setting of the model (`premiere settings --table`)."
        raise SettingsError(f"{name} is no setting that can be compared: {remedy}") from None
    except ValidationError as error:
        hint = "" if value.startswith("[") else "; a list stands in brackets, for example [64,32]"
        reason = plain_reason(error.errors()[0])
        is_list = error.errors()[0]["type"] in ("missing", "tuple_type", "too_short")
        raise SettingsError(f"Invalid value of the setting {name}: {reason}{hint if is_list else ''}.") from None
    except ValueError as error:
        raise SettingsError(f"Invalid value of the setting {name}: {error}.") from None


def refuse_equal_sides(names: tuple[str, str], settings: LearnerSettings) -> None:
    """Raises SettingsError if both sides are the same settings: that would be a long run without a result."""
    first, second = (parse_settings(name, settings) for name in names)
    if first == second:
        raise SettingsError(f"A ({names[0]}) and B ({names[1]}) are the same settings.")


def as_toml(text: str) -> str:
    """The lines of premiere.toml that set the values of a side, given as text to `parse_settings`."""
    top: list[str] = []
    tables: dict[str, list[str]] = {}
    for word in re.split(r",(?![^\[]*\])", text):
        name, equals, value = word.strip().partition("=")
        table, dot, field = name.partition(".")
        shown = value if re.fullmatch(r"[\d.\[\],e-]+|true|false", value) else f'"{value}"'
        if dot:
            tables.setdefault(table, []).append(f"{field} = {shown}")
        elif equals:
            top.append(f"{name} = {shown}")
        elif name in PRESETS:
            top.append(f'model_size = "{name}"')
        elif name != CURRENT:
            size = parse_size(name)
            tables.setdefault("backbone", []).extend(f"{part} = {n}" for part, n in size._asdict().items())
    return "\n".join([*top, *(f"[{table}]\n" + "\n".join(lines) for table, lines in tables.items())])


def first_test_event(data: Dataset, days: float | None) -> int:
    """The index of the first scored event. Raises SettingsError if no event would be left to learn from before it."""
    if days is None:
        return int(len(data) * WARMUP_SHARE)
    first = int(np.searchsorted(data.ts, data.ts[-1] - days * DAY_MS, "right"))
    if first == 0:
        span = (data.ts[-1] - data.ts[0]) / DAY_MS
        raise SettingsError(f"The data span {span:.1f} days: give fewer days, so that earlier events can be learned.")
    return first


def report(
    data: Dataset,
    encode: Encoder,
    settings: LearnerSettings,
    names: tuple[str, str],
    progress: Reporter,
    days: float | None = None,
) -> dict[str, Any]:
    """Run both sides. Returns MRR and HR@10 by slice and popularity bucket, paired differences of B over A, the
    verdict on B, and curves. Raises SettingsError."""
    set_threads(1)
    sides = {side: parse_settings(name, settings) for side, name in zip(SIDES, names, strict=True)}
    first = first_test_event(data, days)
    recorded = _run(data, encode, sides["A"], "A", names[0], progress, first)
    other = _run(data, encode, sides["B"], "B", names[1], progress, first)
    assert (recorded.users, recorded.times) == (other.users, other.times)
    recorded.ranks |= other.ranks  # the slices are those of A: what B has evicted is one of its settings
    slices = recorded.slices()
    del slices["unseen_titles"]  # equals the first popularity bucket
    masks = slices | recorded.popularity_buckets()
    variants = [recorded_name(side, order) for order in ORDERS for side in SIDES]
    gain = {order: recorded.gain(recorded_name("B", order), recorded_name("A", order), masks) for order in ORDERS}
    return {
        **report_header(data, recorded),
        "warmup_events": first,
        "days": days,
        "names": dict(zip(SIDES, names, strict=True)),
        "settings": {side: asdict(changed) for side, changed in sides.items()},
        "parts": {part: int(inside.sum()) for part, inside in masks.items()},
        "mrr": {name: recorded.mrr(name, masks) for name in variants},
        "hr10": {name: recorded.hr10(name, masks) for name in variants},
        "gain": gain,
        "verdict": verdict(gain[FINAL_LISTS]["all"]),
        "curve": _curve(recorded),
    }


def _run(
    data: Dataset,
    encode: Encoder,
    settings: LearnerSettings,
    side: str,
    name: str,
    progress: Reporter,
    first: int,
) -> ScoredEvents:
    """The scored events of one side."""
    progress.line(f"{side}: {name}")
    pipelines = {side: new_pipeline(settings)}
    learner, ranks = Learner(settings, pipelines), BackboneRanks(pipelines, settings.repeats)
    return require_scored(run_prequential(data, encode, learner, progress, [ranks], first=first))


def _curve(recorded: ScoredEvents) -> dict[str, Any]:
    """MRR of consecutive stretches by variant, and the time at the end of each stretch."""
    curve: dict[str, Any] = dict(recorded.curve())
    ends = [recorded.times[int(end) - 1] for end in curve["events"]]
    return curve | {"until": [datetime.fromtimestamp(ts / 1000, UTC).isoformat(timespec="minutes") for ts in ends]}


def conclusion(result: Mapping[str, Any]) -> str:
    """The verdict on B as a sentence."""
    gain, names = result["gain"][FINAL_LISTS]["all"], result["names"]
    measured = f"MRR of B less that of A {format_ci(gain)}, {format_size(gain)}"
    if gain["mean"] == gain["low"] == gain["high"] == 0:
        return f"A and B do not differ in any rank: {measured}."
    if gain["users"] < MIN_USERS:
        return f"Inconclusive, fewer than {MIN_USERS} users: {measured}."
    sentences = {
        BETTER: f"B ({names['B']}) is better than A ({names['A']}), the 95 % CI excludes zero: {measured}.",
        WORSE: f"A ({names['A']}) is better than B ({names['B']}), the 95 % CI excludes zero: {measured}.",
        INCONCLUSIVE: f"Inconclusive, the 95 % CI contains zero: {measured}.",
    }
    return sentences[verdict(gain)]


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The report as lines of text."""
    last = f", the last {result['days']:g} days," if result["days"] is not None else ""
    yield (
        f"{result['data']}: {result['warmup_events']:,} warm-up events learned, then {result['scored']:,} events{last} "
        f"of {result['users']:,} users scored and learned"
    )
    for side, name in result["names"].items():
        yield f"{side}: {name}"
    for order in ORDERS:
        yield ""
        heading = f"MRR, {ORDER_LABELS[order]}"
        yield f"{heading:<28}{'events':>8}{'A':>9}{'B':>9}   B less A, with its 95 % CI over users"
        for part, count in result["parts"].items():
            a, b = (result["mrr"][recorded_name(side, order)][part] for side in SIDES)
            gain = result["gain"][order][part]
            cells = "".join(f"{'-' if cell is None else f'{cell:.4f}':>9}" for cell in (a, b))
            yield f"  {_part_label(part):<26}{count:>8,}{cells}   {format_ci(gain) if gain else '-'}"
    yield ""
    yield conclusion(result)
    yield from _significant(result)
    better = result["names"].get({BETTER: "B", WORSE: "A"}.get(result["verdict"], ""))
    if better is not None and (lines_of_file := as_toml(better)):
        yield "To use the better settings, put these lines into premiere.toml and restart `learn`:"
        yield lines_of_file


def _significant(result: Mapping[str, Any]) -> Iterator[str]:
    """The parts whose interval excludes zero."""
    significant = [
        f"{ORDER_LABELS[order]}, {_part_label(part)} {gain['mean']:+.4f}"
        for order, by_part in result["gain"].items()
        for part, gain in by_part.items()
        if gain and (gain["low"] > 0 or gain["high"] < 0)
    ]
    if significant:
        count = sum(gain is not None for by_part in result["gain"].values() for gain in by_part.values())
        yield (
            f"The 95 % CI excludes zero in {len(significant)} of {count} intervals (by chance, one in twenty does): "
            f"{'; '.join(significant)}."
        )


def _part_label(part: str) -> str:
    return part.replace("_", " ") if part[0].isalpha() else f"titles of {part} events"


SIDE_COLORS: Final = {"A": SERIES_COLORS[0], "B": COLORS["full"]}


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Both curves, and the gain of B by slice and popularity bucket with its intervals."""
    with figure(path, (13, 4.8), columns=2) as (left, right):
        _draw_curves(left, result)
        _draw_gains(right, result)


def _draw_curves(axes: Any, result: Mapping[str, Any]) -> None:
    curve, names = result["curve"], result["names"]
    for order, line in zip(ORDERS, ("-", ":"), strict=True):
        for side in SIDES:
            label = f"{side}: {names[side]}{', backbone only' if order == BACKBONE_ONLY else ''}"
            values = curve[recorded_name(side, order)]
            axes.plot(curve["events"], values, line, color=SIDE_COLORS[side], lw=2, label=label)
    axes.set(xlabel="scored events", ylabel=f"MRR per {curve['events'][0]:,.0f} events", ylim=(0, None))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_title(f"{result['data']}, from {curve['until'][0][:10]} to {curve['until'][-1][:10]}")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2, fontsize=9.5)


def _draw_gains(axes: Any, result: Mapping[str, Any]) -> None:
    parts = list(result["parts"])
    for k, order in enumerate(ORDERS):
        gains = [(row + 0.3 * k - 0.15, result["gain"][order][part]) for row, part in enumerate(parts)]
        scored = [(y, gain) for y, gain in gains if gain]
        for y, gain in scored:
            axes.plot([gain["low"], gain["high"]], [y, y], color=SERIES_COLORS[2 - k], lw=1.6)
        means, ys = [gain["mean"] for _, gain in scored], [y for y, _ in scored]
        axes.plot(means, ys, "os"[k], color=SERIES_COLORS[2 - k], ms=6, label=ORDER_LABELS[order])
    axes.axvline(0, color="#666666", lw=1)
    axes.set_yticks(range(len(parts)), [f"{_part_label(part)} ({result['parts'][part]:,})" for part in parts])
    axes.set(ylim=(len(parts) - 0.5, -0.5), title="MRR of B less that of A", axisbelow=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.3f}" if value else "0")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.08), ncols=2, fontsize=9.5)
