"""The page docs/results/results.md, generated from the files of the parts. A part without a file is left out.

Sentences about differences follow from confidence intervals: a difference whose interval contains zero is inconclusive.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from infra.experiments import ablations, evaluate, other_streams, results_figures
from infra.experiments.backbone_ranks import BACKBONE_ONLY, backbone_only
from infra.experiments.baseline_report import best_recent_window, describe_window
from infra.experiments.verdicts import BETTER, INCONCLUSIVE, VERDICTS, WORSE, format_ci, format_size, verdict

SLICE_LABELS: Final = {
    "all": "all", "new_titles": "new titles", "unseen_titles": "unseen titles", "new_users": "new users",
}  # fmt: skip
LABELS: Final = {
    "full": "Premiere",
    "online": "online",
    "no_backbone": "Premiere, no backbone",
    "frozen": "Premiere, frozen after the first fifth",
    backbone_only("full"): "backbone only",
    backbone_only("online"): "online, backbone only",
    "retrained": "retrained",
    backbone_only("retrained"): "retrained, backbone only",
    "retrained, frozen counters": "retrained, frozen counters",
    "cooccurrence": "last-title co-occurrence",
    "popularity_1h": "popularity, last hour",
    "popularity_1d": "popularity, last day",
    "popularity_7d": "popularity, last 7 days",
    "popularity_30d": "popularity, last 30 days",
    "popularity": "popularity, all time",
}
VERDICT_LABELS: Final = {
    WORSE: "Worse than the default (95 % CI excludes zero)",
    BETTER: "Better than the default (95 % CI excludes zero)",
    INCONCLUSIVE: "Inconclusive (95 % CI contains zero)",
}
INTRO: Final = """\
# Results

Quality of Premiere compared with baselines, with batch retraining, and with ablations of its parts. `make results`
generates this page from the available data.

The evaluation is prequential (test-then-train): before each event is learned, the titles are ranked for its user.
Candidates are the launched titles that have at least one event anywhere in the dataset and that the user has not seen.
Events on seen titles, and the first fifth of a stream, are learned but not scored. MRR is the mean of 1/rank of the
chosen titles. Differences are paired by event. Brackets are 95 % confidence intervals from a bootstrap over users; an
interval that contains zero means no detectable difference. *New titles* have fewer than 10 earlier events, *unseen
titles* none, and *new users* fewer than 5.
"""

Files = Mapping[str, Mapping[str, Any]]  # part -> content of its file


def lines(files: Files, page: Path) -> Iterator[str]:
    """The page as lines of Markdown. Also draws the figures."""
    yield INTRO
    yield from runs(files)
    if "headline" in files:
        yield from headline(files["headline"], page)
    names = [name for group in ablations.ablation_groups(0.0) if (name := f"ablations-{group}") in files]
    if names:
        yield from ablation_section({name: files[name]["result"]["rows"] for name in names}, files[names[0]], page)
    if "retraining" in files:
        yield from retraining(files["retraining"], page)
    for name in ("globo", "ml-1m"):
        if name in files:
            yield from other_stream(name, files[name], page)
    if "throughput" in files:
        yield from throughput(files["throughput"], page)


def runs(files: Files) -> Iterator[str]:
    """The table of all runs, the default settings and the commands."""
    yield "| part | data | events | date (UTC) | minutes | device |"
    yield "|---|---|---:|---|---:|---|"
    for name, part in files.items():
        data = part["data"]
        data_name = data["name"] + (" (simulated)" if data["simulated"] else "")
        row = f"{data['events']:,} | {part['date'][:16]} | {part['seconds'] / 60:.1f} | {part['device']}"
        yield f"| {name} | {data_name} | {row} |"
    yield ""
    for part in list(files.values())[:1]:
        s, signals = part["inputs"]["settings"], len(part["inputs"]["signals"])
        sequence, network = s["sequence"], s["sequence"]["network"]
        yield (
            f"Default settings: {network['blocks']} blocks of width {network['width']}, histories of "
            f"{network['max_history']} events, {sequence['steps']} steps per micro-batch, each with "
            f"{sequence['replay_windows']} replayed windows, {signals} signals, a shortlist of {s['shortlist']}, seed "
            f"{s['seed']}, torch {part['torch']}, one thread. Commands:"
        )
    for command in sorted({part["command"] for part in files.values()}):
        yield f"\n    {command}"


def headline(part: Mapping[str, Any], page: Path) -> Iterator[str]:
    """The section on the prequential evaluation."""
    result = part["result"]
    yield "\n## Prequential evaluation\n"
    yield from mrr_table(result["mrr"])
    yield ""
    yield from difference_table(result["gains"])
    yield from draw_curves(page, "mrr", "MRR over the stream", result["curve"])
    yield "\nThe full report, with metrics by popularity of the title and beyond-accuracy metrics:\n\n```"
    yield from evaluate.lines(result["report"])
    yield "```"


def mrr_table(mrr: Mapping[str, Mapping[str, float | None]]) -> Iterator[str]:
    """MRR by variant and slice, and the best window of recent popularity."""
    yield "| MRR | " + " | ".join(SLICE_LABELS.values()) + " |"
    yield "|---|" + "---:|" * len(SLICE_LABELS)
    for name in [*(known for known in LABELS if known in mrr), *(name for name in mrr if name not in LABELS)]:
        if name.endswith(BACKBONE_ONLY) and name not in LABELS:
            continue
        yield f"| {LABELS.get(name, name)} | " + " | ".join(decimal(mrr[name][part]) for part in SLICE_LABELS) + " |"
    yield "\n" + describe_window(best_recent_window(mrr))


def difference_table(gains: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Paired differences in MRR by slice, and a sentence on each over all events."""
    yield "| difference in MRR | " + " | ".join(SLICE_LABELS.values()) + " |"
    yield "|---|" + "---|" * len(SLICE_LABELS)
    for pair in gains:
        cells = " | ".join(format_gain(pair["gain"][part]) for part in SLICE_LABELS)
        yield f"| {LABELS[pair['variant']]} less {LABELS[pair['reference']]} | {cells} |"
    yield ""
    for pair in gains:
        gain = pair["gain"]["all"]
        if gain:
            text = describe_difference(LABELS[pair["variant"]], LABELS[pair["reference"]], gain)
            yield f"- {text[0].upper()}{text[1:]}"


def describe_difference(name: str, reference: str, gain: Mapping[str, float]) -> str:
    """The verdict on a difference as a sentence."""
    mrr, size = decimal(abs(gain["mean"])), format_size(gain)
    sentences = {
        BETTER: f"{name} beats {reference} by {mrr} MRR (95 % CI excludes zero; {size}).",
        WORSE: f"{name} is below {reference} by {mrr} MRR (95 % CI excludes zero; {size}).",
        INCONCLUSIVE: f"{name} against {reference}: inconclusive ({size}).",
    }
    return sentences[verdict(gain)]


def ablation_section(groups: Files, part: Mapping[str, Any], page: Path) -> Iterator[str]:
    """The section on ablations."""
    table = ablations.merge_groups(groups)
    scored = table[ablations.DEFAULT]["events"]
    yield "\n## Ablations\n"
    yield (
        f"Each row changes one part of the default model. All rows use the first {part['data']['events']:,} events of "
        f"{part['data']['name']} ({scored:,} scored). A difference below zero means that the part improves MRR. "
        "*Backbone only*: the order by the backbone's score. *CPU s*: processor time of the variant; ablations of the "
        "ranker read the default's backbone and do not include its time.\n"
    )
    yield (
        "| change | " + " | ".join(SLICE_LABELS.values()) + " | less default | backbone only | less default's | CPU s |"
    )
    yield "|---|" + "---:|" * len(SLICE_LABELS) + "---|---:|---|---:|"
    for name, row in table.items():
        cells = [decimal(row["mrr"][part]) for part in SLICE_LABELS]
        backbone = ["", ""]
        if row["backbone_only_mrr"]:
            backbone = [decimal(row["backbone_only_mrr"]["all"]), format_gain(row["backbone_only_gain"]["all"])]
        gain = format_gain(row["gain"]["all"])
        if name == ablations.DEFAULT:
            gain, backbone = "", [backbone[0], ""]
        yield f"| {name} | " + " | ".join([*cells, gain, *backbone, f"{row['cpu_seconds']:,.0f}"]) + " |"
    yield ""
    for word, names in ablation_verdicts(table).items():
        if names:
            yield f"- {VERDICT_LABELS[word]}: {', '.join(names)}."
    path = figure_path(page, "ablations")
    results_figures.bars(table, path)
    yield f"\n![Change in MRR by ablation]({path.name})"


def ablation_verdicts(table: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The ablations by verdict over all events."""
    by_verdict: dict[str, list[str]] = {word: [] for word in (WORSE, BETTER, INCONCLUSIVE)}
    assert set(by_verdict) == set(VERDICTS)
    for name, row in table.items():
        if name != ablations.DEFAULT and row["gain"]["all"]:
            by_verdict[verdict(row["gain"]["all"])].append(name)
    return by_verdict


def retraining(part: Mapping[str, Any], page: Path) -> Iterator[str]:
    """The section on batch retraining."""
    result = part["result"]
    flops, mrr, retrainings = result["flops"], result["mrr"], result["retrainings"]
    share = mrr["online"]["all"] / mrr["retrained"]["all"]
    cost = flops["online"] / flops["retrained"] if flops["retrained"] else float("nan")
    epochs = ", ".join(str(epochs) for epochs in sorted({retraining["epochs"] for retraining in retrainings}))
    choices = ", ".join(retrainings[0]["mrr_by_epochs"])
    yield "\n## Batch retraining\n"
    yield (
        f"The batch variant is the same system, retrained from scratch every {result['every']:,} events on all earlier "
        f"events ({len(retrainings)} times, {epochs} epochs, the best of {choices} by the newest tenth). Its weights "
        "are frozen in between, its counters stay current. The last row freezes the counters too.\n"
    )
    yield from mrr_table(mrr)
    yield ""
    yield from difference_table(result["gains"])
    yield (
        f"\nOnline learning reaches {share:.0%} of the retrained variant's MRR with {cost:.0%} of its training FLOPs "
        f"({flops['online']:.3g} against {flops['retrained']:.3g}). The cost of retraining grows with the stream: at "
        f"these costs per event, online learning costs a tenth from {flops['tenth_at_events']:,.0f} events on."
    )
    first = part["data"]["events"] - scored_events(result)
    retrained_at = [r["events"] - first for r in retrainings if r["events"] > first]
    yield from draw_curves(page, "retraining", "MRR between retrainings", result["curve"], retrained_at)


def scored_events(result: Mapping[str, Any]) -> int:
    """The number of scored events of a part."""
    return int(result["curve"]["events"][-1])


def other_stream(name: str, part: Mapping[str, Any], page: Path) -> Iterator[str]:
    """The section on another dataset."""
    result = part["result"]
    titles = {"globo": "News: globo", "ml-1m": "Movies in user order: ml-1m"}
    yield f"\n## {titles[name]}\n"
    size = f"{result['events']:,} events, {result['users']:,} users, {result['titles']:,} titles"
    if name == "globo":
        yield (
            f"{size}: the first clicks from {other_streams.GLOBO_DAY} on, with an untrained model. Articles have no "
            "text.\n"
        )
    else:
        yield (
            f"{size}. The file has each user's order and only the time of the user's last event. The stream is "
            f"synthetic: each user's first events, {other_streams.EVENT_GAP_S} seconds apart, ending at that time. The "
            "results concern order, not time.\n"
        )
    yield from mrr_table(result["mrr"])
    yield ""
    yield from difference_table(result["gains"])
    yield from draw_curves(page, name, f"MRR over {name}", result["curve"])


def throughput(part: Mapping[str, Any], page: Path) -> Iterator[str]:
    """The section on the learner's speed and memory."""
    samples = part["result"]["samples"]
    yield "\n## Learner throughput\n"
    yield (
        "Clicks of globo, as fast as one thread learns them: with default settings, without replay, and for "
        f"{part['result']['minutes']:g} minutes with the load shedding for {other_streams.TARGET_EVENTS_PER_S:,} "
        "events/s of log time (least replay, larger micro-batches, a sample of the events evaluated). Memory includes "
        "the clicks waiting to be read and every user's history.\n"
    )
    yield "| mode | events | events/s, first | last | slowest | events/s of CPU, last | MiB, first | last | users |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for mode, mode_samples in samples.items():
        if mode_samples:
            first, last = mode_samples[0], mode_samples[-1]
            rates = [sample["events_per_s"] for sample in mode_samples]
            speed = [f"{rates[0]:,.0f}", f"{rates[-1]:,.0f}", f"{min(rates):,.0f}", f"{last['events_per_cpu_s']:,.0f}"]
            memory = [f"{first['resident_mib']:,.0f}", f"{last['resident_mib']:,.0f}", f"{last['users']:,.0f}"]
            yield f"| {mode} | {last['events']:,.0f} | " + " | ".join([*speed, *memory]) + " |"
    path = figure_path(page, "throughput")
    results_figures.throughput(samples, path)
    yield f"\n![Events per second, and memory]({path.name})"


def figure_path(page: Path, name: str) -> Path:
    """The path of a figure: beside its page, with the page's name first."""
    return page.with_name(f"{page.stem}-{name}.png")


def draw_curves(
    page: Path, name: str, title: str, curve: Mapping[str, Sequence[float]], vertical_lines: Sequence[int] = ()
) -> Iterator[str]:
    """Draw curves of MRR, and the Markdown line of the figure."""
    path = figure_path(page, name)
    results_figures.curves(curve, LABELS, vertical_lines, path)
    yield f"\n![{title}]({path.name})"


def decimal(value: float | None) -> str:
    """A metric with four decimals, such as 0.0123."""
    return "-" if value is None else f"{value:.4f}"


def format_gain(gain: Mapping[str, float] | None) -> str:
    """A difference with its interval, or a dash."""
    return "-" if gain is None else format_ci(gain)
