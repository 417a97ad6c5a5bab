"""`premiere flops`: FLOPs per training token, with the paper's settings and with the current settings.

For the current settings, the report compares the formula with a count taken during a real training step.
Source: arXiv 2605.23312, figure 2.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from infra.charts import SERIES_COLORS, figure
from model.sequence.backbone import Backbone
from model.sequence.flops import PARTS, TrainingStep, layer_flops, measured_flops, paper_flops
from model.settings import PRESETS, BackboneSize, NetworkSettings, SequenceSettings, preset

PAPER: Final = {"blocks": 6, "width": 1024, "events": 512}
SAMPLED_SHARE: Final = 0.01  # of the titles, in a step with sampled softmax
HEAD_DIVISOR: Final = 8  # width of the backbone / width of the output head
CATALOG_SIZES: Final = (10_000, 100_000, 1_000_000, 10_000_000)
PUBLISHED: Final = {(1_000_000, "full"): 1.26e10, (1_000_000, "both"): 3.567e8}  # read off figure 2
OUTPUT_LAYERS: Final = {
    "full": "full softmax",
    "projected": "full softmax, head of 1/8 width",
    "sampled": "1 % sampled",
    "both": "1 % sampled, head of 1/8 width",
}
MAX_COUNTED_PARAMETERS: Final = 300e6  # a step of a larger network needs over 6 GB and is not counted


def report(model: str, settings: SequenceSettings, titles: int) -> dict[str, Any]:
    """FLOPs per training token: with the paper's settings by catalog size, and with these settings for `titles`."""
    network = settings.network
    shape = {"blocks": network.blocks, "width": network.width, "events": network.max_history}
    counted = measured_flops(settings, titles) if parameters(preset(model)) <= MAX_COUNTED_PARAMETERS else None
    step = counted.step if counted else _step(settings)
    full_softmax = TrainingStep(step.tokens, step.rows, titles, titles)  # the tower embeds every title
    share = min(1.0, settings.objective.negatives / titles)
    return {
        "paper": {"setting": PAPER, "rows": [row(**PAPER, titles=size) for size in CATALOG_SIZES]},
        "model": model,
        "titles": titles,
        "settings": asdict(settings),
        "step": asdict(step),
        "paper_formula": {
            "full": paper_flops(**shape, titles=titles),
            "current": paper_flops(**shape, titles=titles, sampled=share, d_out=_head(network.d_out, network.width)),
        },
        "formula": _with_total(layer_flops(network, step)),
        "formula_full_softmax": _with_total(layer_flops(network, full_softmax)),
        "measured": _with_total(counted.parts) if counted else None,
        "sizes": {
            name: {
                "parameters": parameters(preset(name)),
                **_with_total(layer_flops(preset(name, network.horizons), step)),
            }
            for name in PRESETS
        },
    }


def row(blocks: int, width: int, events: int, titles: int) -> dict[str, float]:
    """FLOPs per token of each output layer for `titles` titles, and the factor that both savings give together."""
    shape = {"blocks": blocks, "width": width, "events": events}
    head = width // HEAD_DIVISOR
    full, both = (
        paper_flops(**shape, titles=titles),
        paper_flops(**shape, titles=titles, sampled=SAMPLED_SHARE, d_out=head),
    )
    projected, sampled = (
        paper_flops(**shape, titles=titles, d_out=head),
        paper_flops(**shape, titles=titles, sampled=SAMPLED_SHARE),
    )
    return {
        "titles": titles, "full": full, "projected": projected, "sampled": sampled, "both": both, "factor": full / both,
    }  # fmt: skip


def parameters(shape: NetworkSettings) -> int:
    """Parameters of the backbone only, as in the names of the presets. Allocates no memory."""
    with torch.device("meta"):
        backbone = Backbone(BackboneSize(shape.width, shape.blocks, shape.heads), shape.max_history + 1)
    return sum(p.numel() for p in backbone.parameters())


def _head(d_out: int, width: int) -> int | None:
    return d_out if d_out < width else None


def _step(settings: SequenceSettings) -> TrainingStep:
    """The training step of the default size, used for sizes that are too large to be counted."""
    small = SequenceSettings(preset("cpu", settings.network.horizons), settings.objective)
    return measured_flops(small, 10_000).step


def _with_total(parts: dict[str, float]) -> dict[str, float]:
    return {**parts, "all": sum(parts.values())}


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The report as lines of text."""
    yield "FLOPs per training token by the paper's formula (6 blocks, width 1024, 512 events). head: output head of 1/8"
    yield "of the width. sampled: softmax over 1 % of the titles."
    yield f"{'titles':>12}{'full':>12}{'head':>12}{'sampled':>12}{'both':>12}{'factor':>12}"
    for size in result["paper"]["rows"]:
        cells = "".join(f"{size[name]:>12.4g}" for name in OUTPUT_LAYERS)
        yield f"{size['titles']:>12,}{cells}{size['factor']:>12.1f}"
    network, step, formula = result["settings"]["network"], result["step"], result["paper_formula"]
    yield ""
    yield (
        f"Current settings: model {result['model']} ({network['blocks']} blocks, width {network['width']}), "
        f"{network['max_history']} events, {result['titles']:,} titles, {step['negatives']:,} negatives."
    )
    yield f"One step: {step['tokens']:,} tokens, {step['rows']:,} rows of the loss, {step['titles']:,} titles."
    yield f"{'':<34}" + "".join(f"{part:>14}" for part in (*PARTS, "all"))
    rows = {
        "full softmax, by formula": result["formula_full_softmax"],
        "current, by formula": result["formula"],
        "current, counted in a step": result["measured"],
    }
    for name, parts in rows.items():
        cells = "".join(f"{parts[part]:>14.4g}" for part in (*PARTS, "all")) if parts else "   too large to be counted"
        yield f"{name:<34}{cells}"
    factor = formula["full"] / formula["current"]
    yield (
        f"The paper's formula for this shape: {formula['full']:.4g} full, {formula['current']:.4g} current "
        f"(factor {factor:.1f})."
    )
    yield ""
    yield f"{'model':<8}{'parameters':>16}{'FLOPs per token':>16}{'backbone share':>16}   (same step)"
    for name, size in result["sizes"].items():
        yield f"{name:<8}{size['parameters']:>16,}{size['all']:>16.4g}{size['backbone'] / size['all']:>16.0%}"


def draw(result: Mapping[str, Any], path: Path) -> None:
    """FLOPs over catalog size by output layer, and FLOPs by part of the network."""
    with figure(path, (12, 4.6), columns=2) as (left, right):
        sizes = [10 ** (4 + k / 20) for k in range(61)]
        for color, (name, label) in zip(SERIES_COLORS, OUTPUT_LAYERS.items(), strict=False):
            left.plot(sizes, [row(**PAPER, titles=round(v))[name] for v in sizes], color=color, lw=2, label=label)
        x, y = zip(*((titles, flops) for (titles, _), flops in PUBLISHED.items()), strict=True)
        left.plot(x, y, "o", color="black", ms=7, mfc="none", mew=1.6, label="published, read off figure 2")
        left.set(xscale="log", yscale="log", xlabel="titles", ylabel="FLOPs per training token")
        left.set_title("the paper's backbone: 6 blocks, width 1024, 512 events")
        left.legend(loc="upper left")
        _draw_parts(right, result)


def _draw_parts(axes: Any, result: Mapping[str, Any]) -> None:
    keys = {"full softmax": "formula_full_softmax", "current, by formula": "formula", "current, counted": "measured"}
    series = {label: result[key] for label, key in keys.items() if result[key]}
    unit, unit_name = (1e9, "billions") if result["formula"]["all"] > 1e9 else (1e6, "millions")
    for k, (label, parts) in enumerate(series.items()):
        x = [index + (k - (len(series) - 1) / 2) * 0.27 for index in range(len(PARTS) + 1)]
        heights = [parts[part] for part in (*PARTS, "all")]
        bars = axes.bar(x, heights, 0.25, color=SERIES_COLORS[k], label=label)
        axes.bar_label(bars, [f"{height / unit:.3g}" for height in heights], fontsize=8.5, padding=2)
    axes.set_xticks(range(len(PARTS) + 1), [*PARTS, "all"])
    axes.set(yscale="log", ylabel=f"FLOPs per training token (on the bars: {unit_name})", axisbelow=True)
    axes.margins(y=0.25)
    axes.set_title(f"model {result['model']}, {result['titles']:,} titles")
    axes.legend(loc="upper left")
