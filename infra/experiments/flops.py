"""`premiere flops`: what a training token costs, in the paper's setting and with the settings in force.

The second part stands beside a count made while a real step ran, so that nobody has to believe a formula.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from infra.charts import LOOK, SERIES
from model.sequence.backbone import PRESETS, Backbone, Dims
from model.sequence.flops import PARTS, TrainingStep, measured, own, paper
from model.sequence.model import SequenceSettings
from model.sequence.network import NetworkSettings, preset

PAPER: Final = {"blocks": 6, "width": 1024, "events": 512}
SAMPLED, PROJECTED = 0.01, 8  # share of the titles in a step, and what the width is divided by
TITLES: Final = (10_000, 100_000, 1_000_000, 10_000_000)
PUBLISHED: Final = {(1_000_000, "full"): 1.26e10, (1_000_000, "both"): 3.567e8}  # as others read figure 2
DECODERS: Final = {
    "full": "full softmax",
    "projected": "full softmax, head of an eighth",
    "sampled": "1 % sampled",
    "both": "1 % sampled, head of an eighth",
}
MOST: Final = 300e6  # parameters of a network whose step is counted: beyond it the step takes over 6 GB


def report(model: str, settings: SequenceSettings, titles: int) -> dict[str, Any]:
    """FLOPs a training token: the paper's setting by size of the catalogue, and these settings over `titles`."""
    network = settings.network
    shape = {"blocks": network.blocks, "width": network.width, "events": network.history}
    counted = measured(settings, titles) if parameters(preset(model)) <= MOST else None
    step = counted.step if counted else _step(settings)
    whole = TrainingStep(step.tokens, step.rows, titles, titles)  # every title is a candidate, and made by the tower
    share = min(1.0, settings.objective.negatives / titles)
    return {
        "paper": {"setting": PAPER, "rows": [row(**PAPER, titles=many) for many in TITLES]},
        "model": model,
        "titles": titles,
        "settings": asdict(settings),
        "step": asdict(step),
        "by_the_papers_formula": {
            "full": paper(**shape, titles=titles),
            "in_force": paper(**shape, titles=titles, sampled=share, d_out=_head(network.d_out, network.width)),
        },
        "own": _summed(own(network, step)),
        "own_full_softmax": _summed(own(network, whole)),
        "measured": _summed(counted.parts) if counted else None,
        "sizes": {
            name: {"parameters": parameters(preset(name)), **_summed(own(preset(name, network.horizons), step))}
            for name in PRESETS
        },
    }


def row(blocks: int, width: int, events: int, titles: int) -> dict[str, float]:
    """Each decoder's FLOPs a token over so many titles, and what both savings together bring."""
    shape = {"blocks": blocks, "width": width, "events": events}
    head = width // PROJECTED
    full, both = paper(**shape, titles=titles), paper(**shape, titles=titles, sampled=SAMPLED, d_out=head)
    projected, sampled = paper(**shape, titles=titles, d_out=head), paper(**shape, titles=titles, sampled=SAMPLED)
    return {
        "titles": titles, "full": full, "projected": projected, "sampled": sampled, "both": both, "times": full / both,
    }  # fmt: skip


def parameters(shape: NetworkSettings) -> int:
    """Of the backbone alone, as the names of presets count them, without making it."""
    with torch.device("meta"):
        backbone = Backbone(Dims(shape.width, shape.blocks, shape.heads), shape.history + 1)
    return sum(p.numel() for p in backbone.parameters())


def _head(d_out: int, width: int) -> int | None:
    return d_out if d_out < width else None


def _step(settings: SequenceSettings) -> TrainingStep:
    """What a step of the default size handles, for a size whose own cannot be counted here."""
    small = SequenceSettings(preset("cpu", settings.network.horizons), settings.objective)
    return measured(small, 10_000).step


def _summed(parts: dict[str, float]) -> dict[str, float]:
    return {**parts, "all": sum(parts.values())}


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The report for reading."""
    yield "FLOPs a training token by the paper's formula (6 blocks, width 1024, 512 events); `head`: of an eighth of"
    yield "the width, `sampled`: 1 % of the titles."
    yield f"{'titles':>12}{'full':>12}{'head':>12}{'sampled':>12}{'both':>12}{'times less':>12}"
    for one in found["paper"]["rows"]:
        yield f"{one['titles']:>12,}" + "".join(f"{one[name]:>12.4g}" for name in DECODERS) + f"{one['times']:>12.1f}"
    network, step, formula = found["settings"]["network"], found["step"], found["by_the_papers_formula"]
    yield ""
    yield (
        f"With the settings in force: model {found['model']} ({network['blocks']} blocks, width {network['width']}), "
        f"{network['history']} events, {found['titles']:,} titles, {step['negatives']:,} negatives;"
    )
    yield f"a step of {step['tokens']:,} tokens, {step['rows']:,} rows of the loss, {step['titles']:,} titles."
    yield f"{'':<34}" + "".join(f"{part:>12}" for part in (*PARTS, "all"))
    own_rows = {
        "full softmax": found["own_full_softmax"],
        "as set, by formula": found["own"],
        "as set, counted in a step": found["measured"],
    }
    for name, parts in own_rows.items():
        yield f"{name:<34}" + (
            "".join(f"{parts[part]:>12.4g}" for part in (*PARTS, "all")) if parts else "   too large to be run for it"
        )
    times = formula["full"] / formula["in_force"]
    yield (
        f"The paper's formula for this shape: {formula['full']:.4g} full, {formula['in_force']:.4g} as set "
        f"({times:.1f} times less)."
    )
    yield ""
    yield f"{'model':<8}{'parameters':>16}{'FLOPs a token':>16}{'of it backbone':>16}   (same step)"
    for name, one in found["sizes"].items():
        yield f"{name:<8}{one['parameters']:>16,}{one['all']:>16.4g}{one['backbone'] / one['all']:>16.0%}"


def draw(found: Mapping[str, Any], path: Path) -> None:
    """The report as a picture (PNG): decoders over the size of the catalogue, and the parts of a token in force."""
    import matplotlib.pyplot as plt

    with plt.rc_context(LOOK):
        figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
        many = [10 ** (4 + k / 20) for k in range(61)]
        for colour, (name, label) in zip(SERIES, DECODERS.items(), strict=False):
            left.plot(many, [row(**PAPER, titles=round(v))[name] for v in many], color=colour, lw=2, label=label)
        at, read = zip(*((titles, flops) for (titles, _), flops in PUBLISHED.items()), strict=True)
        left.plot(at, read, "o", color="black", ms=7, mfc="none", mew=1.6, label="as others read figure 2")
        left.set(xscale="log", yscale="log", xlabel="titles", ylabel="FLOPs a training token")
        left.set_title("the paper's backbone: 6 blocks, width 1024, 512 events")
        left.legend(loc="upper left")
        bars = {"full softmax": "own_full_softmax", "as set, by formula": "own", "as set, counted": "measured"}
        shown = {label: found[key] for label, key in bars.items() if found[key]}
        unit, word = (1e9, "billions") if found["own"]["all"] > 1e9 else (1e6, "millions")
        for k, (label, parts) in enumerate(shown.items()):
            places = [place + (k - (len(shown) - 1) / 2) * 0.27 for place in range(len(PARTS) + 1)]
            heights = [parts[part] for part in (*PARTS, "all")]
            marks = right.bar(places, heights, 0.25, color=SERIES[k], label=label)
            right.bar_label(marks, [f"{height / unit:.3g}" for height in heights], fontsize=8.5, padding=2)
        right.set_xticks(range(len(PARTS) + 1), [*PARTS, "all"])
        right.set(yscale="log", ylabel=f"FLOPs a training token (on the bars: {word})", axisbelow=True)
        right.margins(y=0.25)
        right.set_title(f"model {found['model']} over {found['titles']:,} titles")
        right.legend(loc="upper left")
        figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
        plt.close(figure)
