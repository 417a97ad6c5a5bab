"""`premiere shadow A B`: two settings side by side over one stream, and whether the difference is more than chance.

Each has a learner of its own, for a setting may be of the memory too; both see the same micro-batches, rank each event
before they learn it, and go on learning through the test, as two live services would. With `days`, the last so many
days of the stream are the test and what came before is learned, as in the paper's shadow test of a week. The sentence
at the end follows from the paired interval by users of the final lists over all events.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.text_encoders import Encoder
from infra.charts import COLOURS, LOOK, SERIES
from infra.data.datasets import DataSet
from infra.errors import SettingsError
from infra.experiments.evaluate import UNCOUNTED
from infra.experiments.harness import ALONE, Recorded, Say, head, scored, stream, watched
from infra.experiments.scaling import dims, sized
from infra.experiments.verdicts import FEW, told
from infra.run.learn import numerics
from model.learner import Learner, LearnerSettings
from model.sequence.backbone import PRESETS
from model.sequence.network import preset

AS_SET: Final = "as-set"
DAY: Final = 86_400_000  # ms
SIDES: Final = ("A", "B")
ORDERS: Final = {"": "the final lists", ALONE: "the backbone alone"}


def named(words: str, settings: LearnerSettings) -> LearnerSettings:
    """Settings by name: parts between commas, each `as-set`, a size of PREMIERE_MODEL, WIDTHxBLOCKS, or
    `path.of.a.setting=value`. Raises SettingsError."""
    for word in words.split(","):
        path, equals, value = word.strip().partition("=")
        if equals:
            settings = _with(settings, path.split("."), value, path)
        elif path in PRESETS:
            network = preset(path, settings.sequence.network.horizons)
            settings = replace(settings, sequence=replace(settings.sequence, network=network))
        elif re.fullmatch(r"\d+x\d+", path):
            settings = sized(settings, dims(path))
        elif path != AS_SET:
            sizes = ", ".join(PRESETS)
            raise SettingsError(f"{path!r} is neither {AS_SET} nor a size ({sizes}) nor a setting, as in seed=1.")
    return settings


def _with(settings: Any, path: list[str], value: str, whole: str) -> Any:
    """A copy with one setting changed."""
    name, *rest = path
    known = [field.name for field in fields(settings)]
    if name not in known:
        raise SettingsError(f"There is no setting {whole}: instead of {name!r} there are {', '.join(known)}.")
    old = getattr(settings, name)
    if is_dataclass(old) and not rest:
        raise SettingsError(f"{whole} is a group of settings: go on with one of it, as in {whole}.NAME=value.")
    if rest and not is_dataclass(old):
        raise SettingsError(f"{name} is no group of settings: leave out what follows it in {whole}.")
    if rest:
        return replace(settings, **{name: _with(old, rest, value, whole)})
    return replace(settings, **{name: _read(old, value, whole)})


def _read(old: Any, value: str, whole: str) -> Any:
    """The value, of the type that the setting has now."""
    if isinstance(old, tuple):
        raise SettingsError(f"{whole} is a list: only single values can be given here.")
    try:
        new = value if isinstance(old, str) else json.loads(value)
    except ValueError:
        new = None
    if isinstance(old, float) and type(new) is int:
        new = float(new)
    if type(new) is not type(old):
        raise SettingsError(
            f"{whole}={value}: a value of type {type(old).__name__} is wanted, as in {whole}={json.dumps(old)}."
        )
    return new


def first_of_test(data: DataSet, days: float | None) -> int:
    """The first event that is scored. Raises SettingsError where none would be left to learn from before it."""
    if days is None:
        return int(len(data) * UNCOUNTED)
    first = int(np.searchsorted(data.ts, data.ts[-1] - days * DAY, "right"))
    if first == 0:
        span = (data.ts[-1] - data.ts[0]) / DAY
        raise SettingsError(f"The data span {span:.1f} days: give fewer than that, so that something is learned first.")
    return first


def report(
    data: DataSet,
    encode: Encoder,
    settings: LearnerSettings,
    names: tuple[str, str],
    say: Say,
    days: float | None = None,
) -> dict[str, Any]:
    """Both over the stream: MRR and HR@10 by slice and age, paired differences of B over A, curves. Raises
    SettingsError."""
    numerics(1)
    sides = {side: named(name, settings) for side, name in zip(SIDES, names, strict=True)}
    if len({of.repeats for of in sides.values()}) > 1:
        raise SettingsError("`repeats` decides which events are scored: it must be the same for both.")
    first = first_of_test(data, days)
    recorded = _told(data, encode, sides["A"], "A", names[0], say, first)
    other = _told(data, encode, sides["B"], "B", names[1], say, first)
    assert (recorded.users, recorded.times) == (other.users, other.times)
    recorded.ranks |= other.ranks  # how often a title was met is A's to say: a memory that forgets is a setting too
    slices = recorded.slices()
    del slices["unseen_titles"]  # the first of the ages
    parts = slices | recorded.ages()
    rankings = [side + order for order in ORDERS for side in SIDES]
    return {
        **head(data, recorded),
        "learned_before": first,
        "days": days,
        "names": dict(zip(SIDES, names, strict=True)),
        "settings": {side: asdict(of) for side, of in sides.items()},
        "parts": {name: int(inside.sum()) for name, inside in parts.items()},
        "mrr": {name: recorded.mrr(name, parts) for name in rankings},
        "hr10": {name: recorded.hr10(name, parts) for name in rankings},
        "gain": {title: recorded.gain("B" + order, "A" + order, parts) for order, title in ORDERS.items()},
        "curve": _curve(recorded),
    }


def _told(
    data: DataSet, encode: Encoder, settings: LearnerSettings, side: str, name: str, say: Say, first: int
) -> Recorded:
    """One side's run."""
    say(f"{side}: {name}")
    return scored(stream(data, encode, Learner(settings, {side: watched(settings)}), say, first=first))


def _curve(recorded: Recorded) -> dict[str, Any]:
    """MRR of each stretch by ranking, and when each ends."""
    curve: dict[str, Any] = dict(recorded.curve())
    ends = [recorded.times[int(end) - 1] for end in curve["events"]]
    return curve | {"until": [datetime.fromtimestamp(ts / 1000, UTC).isoformat(timespec="minutes") for ts in ends]}


def verdict(found: Mapping[str, Any]) -> str:
    """One sentence, which the interval of the final lists over all events decides."""
    gain, names = found["gain"]["the final lists"]["all"], found["names"]
    of = f"MRR {told(gain)}"
    over = f"{gain['events']:,} events of {gain['users']:,} users"
    if gain["mean"] == gain["low"] == gain["high"] == 0:
        return f"There is no difference between A and B, over {over}."
    if gain["users"] < FEW:
        return f"No verdict: {over} are too few to draw users again; B has {of}."
    if gain["low"] > 0:
        return f"B ({names['B']}) is better than A ({names['A']}): {of} over {over}."
    if gain["high"] < 0:
        return f"A ({names['A']}) is better than B ({names['B']}): B has {of} over {over}."
    return f"There is no difference between A and B that {over} can tell: B has {of}."


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The report for reading."""
    last = f", the last {found['days']:g} days," if found["days"] is not None else ""
    yield (
        f"{found['data']}: {found['learned_before']:,} events learned before, then {found['scored']:,} events{last} "
        f"of {found['users']:,} users scored and learned"
    )
    for side, name in found["names"].items():
        yield f"{side}: {name}"
    for order, title in ORDERS.items():
        yield ""
        yield f"{'MRR of ' + title:<28}{'events':>8}{'A':>9}{'B':>9}   B over A, with its interval by users"
        for part, count in found["parts"].items():
            a, b, gain = (*(found["mrr"][side + order][part] for side in SIDES), found["gain"][title][part])
            cells = "".join(f"{'-' if cell is None else f'{cell:.4f}':>9}" for cell in (a, b))
            yield f"  {_titled(part):<26}{count:>8,}{cells}   {told(gain) if gain else '-'}"
    yield ""
    yield verdict(found)
    yield from _apart(found)


def _apart(found: Mapping[str, Any]) -> Iterator[str]:
    """Parts whose interval leaves 0 out."""
    moved = [
        f"{title}, {_titled(part)} {gain['mean']:+.4f}"
        for title, by_part in found["gain"].items()
        for part, gain in by_part.items()
        if gain and (gain["low"] > 0 or gain["high"] < 0)
    ]
    if moved:
        many = sum(gain is not None for by_part in found["gain"].values() for gain in by_part.values())
        yield f"Of {many} intervals, of which chance alone moves one in twenty off 0, these are: {'; '.join(moved)}."


def _titled(part: str) -> str:
    return part.replace("_", " ") if part[0].isalpha() else f"titles of {part} events"


COLOUR: Final = {"A": SERIES[0], "B": COLOURS["full"]}


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Curves of both, and B's gain by slice and age with intervals (PNG)."""
    import matplotlib.pyplot as plt

    with plt.rc_context(LOOK):
        figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.8), layout="constrained")
        curve, names = found["curve"], found["names"]
        step = curve["events"][0]
        for order, line in zip(ORDERS, ("-", ":"), strict=True):
            for side in SIDES:
                label = f"{side}: {names[side]}{order and ', its backbone alone'}"
                left.plot(curve["events"], curve[side + order], line, color=COLOUR[side], lw=2, label=label)
        left.set(xlabel="scored events so far", ylabel=f"MRR of each {step:,.0f} events", ylim=(0, None))
        left.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        left.set_title(f"{found['data']}, from {curve['until'][0][:10]} to {curve['until'][-1][:10]}")
        left.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2, fontsize=9.5)
        parts = list(found["parts"])
        for k, title in enumerate(ORDERS.values()):
            known = [(place, found["gain"][title][part]) for place, part in enumerate(parts)]
            shown = [(place + 0.3 * k - 0.15, gain) for place, gain in known if gain]
            for place, gain in shown:
                right.plot([gain["low"], gain["high"]], [place, place], color=SERIES[2 - k], lw=1.6)
            means, places = [gain["mean"] for _, gain in shown], [place for place, _ in shown]
            right.plot(means, places, "os"[k], color=SERIES[2 - k], ms=6, label=title)
        right.axvline(0, color="#666666", lw=1)
        right.set_yticks(range(len(parts)), [f"{_titled(part)} ({found['parts'][part]:,})" for part in parts])
        right.set(ylim=(len(parts) - 0.5, -0.5), title="MRR of B less that of A", axisbelow=True)
        right.xaxis.set_major_formatter(lambda value, _: f"{value:+.3f}" if value else "0")
        right.legend(loc="upper left", bbox_to_anchor=(0, -0.08), ncols=2, fontsize=9.5)
        figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
        plt.close(figure)
