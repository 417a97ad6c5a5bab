"""The page of the evidence, docs/evidence.md, made of the parts' files; a part without a file is left out.

What a number means is said in words that the numbers decide: an interval that holds zero is never called a gain.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from infra.experiments import ablations, evaluate, other_streams, results_figures

SLICES: Final = {
    "all": "all", "new_titles": "new titles", "unseen_titles": "no event", "new_users": "new users",
}  # fmt: skip
LABELS: Final = {
    "full": "Premiere",
    "online": "learning online",
    "no_backbone": "Premiere without its backbone",
    "frozen": "Premiere frozen after the first fifth",
    "full alone": "the backbone alone",
    "online alone": "online, the backbone alone",
    "retrained": "retrained",
    "retrained alone": "retrained, the backbone alone",
    "retrained, counters too": "retrained, counters frozen too",
    "cooccurrence": "last-title co-occurrence",
    "popularity_recent": "popularity, recent",
    "popularity": "popularity, all time",
}
INTRO: Final = """\
# Evidence

Does learning in the stream beat what people would pick instead, and does each part of it earn its place? This page is
made by `make evidence` from the data that it finds; nothing in it is written by hand. Every event is ranked before it
is learned, among all launched titles that its user has not seen; the first fifth of a stream is learned and not
counted. MRR is the mean of 1/rank. Differences are paired, event by event; the brackets hold 95 % of what they come to
when whole users are drawn again (cluster bootstrap): where they hold zero, these users show no difference. *New titles*
had fewer than 10 events so far, *no event*: none, *new users* fewer than 5.
"""

Files = Mapping[str, Mapping[str, Any]]


def lines(found: Files, page: Path) -> Iterator[str]:
    """The page; figures are drawn on the way."""
    yield INTRO
    yield from runs(found)
    if "headline" in found:
        yield from headline(found["headline"], page)
    names = [name for group in ablations.tables(0.0) if (name := f"ablations-{group}") in found]
    if names:
        yield from ablation({name: found[name]["found"]["rows"] for name in names}, found[names[0]], page)
    if "retraining" in found:
        yield from retraining(found["retraining"], page)
    for name in ("globo", "ml-1m"):
        if name in found:
            yield from other(name, found[name], page)
    if "rates" in found:
        yield from rates(found["rates"], page)


def runs(found: Files) -> Iterator[str]:
    """What was run."""
    yield "| part | data | events | date (UTC) | minutes | device |"
    yield "|---|---|---:|---|---:|---|"
    for name, part in found.items():
        data = part["data"]
        of = data["name"] + (" (simulated)" if data["simulated"] else "")
        row = f"{data['events']:,} | {part['date'][:16]} | {part['seconds'] / 60:.1f} | {part['device']}"
        yield f"| {name} | {of} | {row} |"
    yield ""
    for part in list(found.values())[:1]:
        s, signals = part["asked"]["settings"], len(part["asked"]["signals"])
        sequence, network = s["sequence"], s["sequence"]["network"]
        yield (
            f"Settings, unless a row says otherwise: {network['blocks']} blocks of width {network['width']}, histories "
            f"of {network['history']}, {sequence['steps']} steps a micro-batch, each with {sequence['replayed']} "
            f"windows replayed; {signals} signals, a shortlist of {s['shortlist']}; seed {s['seed']}, "
            f"torch {part['torch']}, one thread. Commands:"
        )
    for command in sorted({part["command"] for part in found.values()}):
        yield f"\n    {command}"


def headline(part: Mapping[str, Any], page: Path) -> Iterator[str]:
    found = part["found"]
    yield "\n## In the stream\n"
    yield from rankings(found["mrr"])
    yield ""
    yield from differences(found["gains"])
    yield from drawn(page, "mrr", "MRR over the stream", found["curve"])
    yield "\nThe whole evaluation, by age of the title and with what the lists show:\n\n```"
    yield from evaluate.lines(found["report"])
    yield "```"


def rankings(mrr: Mapping[str, Mapping[str, float | None]]) -> Iterator[str]:
    """MRR by ranking and slice."""
    yield "| MRR | " + " | ".join(SLICES.values()) + " |"
    yield "|---|" + "---:|" * len(SLICES)
    for name in [*(known for known in LABELS if known in mrr), *(name for name in mrr if name not in LABELS)]:
        if name.endswith(" alone") and name not in LABELS:
            continue
        yield f"| {LABELS.get(name, name)} | " + " | ".join(short(mrr[name][of]) for of in SLICES) + " |"


def differences(gains: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Paired differences, and what they say."""
    yield "| difference in MRR | " + " | ".join(SLICES.values()) + " |"
    yield "|---|" + "---|" * len(SLICES)
    for one in gains:
        cells = " | ".join(signed(one["gain"][of]) for of in SLICES)
        yield f"| {LABELS[one['of']]} against {LABELS[one['over']]} | {cells} |"
    yield ""
    for one in gains:
        gain = one["gain"]["all"]
        if gain:
            said = sentence(LABELS[one["of"]], LABELS[one["over"]], gain)
            yield f"- {said[0].upper()}{said[1:]}"


def sentence(name: str, rival: str, gain: Mapping[str, float]) -> str:
    """What an interval says, and no more."""
    of = f"{gain['events']:,.0f} events of {gain['users']:,.0f} users"
    if gain["low"] > 0 or gain["high"] < 0:
        word = "above" if gain["low"] > 0 else "below"
        return f"{name} lies {word} {rival} by {short(abs(gain['mean']))} of MRR: {of} show it beyond chance."
    return f"{name} against {rival}: {of} show no difference beyond chance."


def ablation(groups: Files, part: Mapping[str, Any], page: Path) -> Iterator[str]:
    table = ablations.merged(groups)
    events = table[ablations.DEFAULT]["events"]
    yield "\n## What each part is worth\n"
    yield (
        f"One change at a time, all on the first {part['data']['events']:,} events of {part['data']['name']} "
        f"({events:,} scored). Below zero: the part earns its place. *Alone*: the order of the backbone's own score. "
        "Seconds are the contender's own processor time; rows about the ranker read the default's backbone and do not "
        "pay for it.\n"
    )
    yield "| change | " + " | ".join(SLICES.values()) + " | against the default | alone | against its | CPU s |"
    yield "|---|" + "---:|" * len(SLICES) + "---|---:|---|---:|"
    for name, row in table.items():
        cells = [short(row["mrr"][of]) for of in SLICES]
        own = [short(row["alone"]["all"]), signed(row["alone_gain"]["all"])] if row["alone"] else ["", ""]
        gain = signed(row["gain"]["all"])
        if name == ablations.DEFAULT:
            gain, own = "", [own[0], ""]
        yield f"| {name} | " + " | ".join([*cells, gain, *own, f"{row['seconds']:,.0f}"]) + " |"
    yield ""
    for word, names in verdicts(table).items():
        if names:
            yield f"- {word}: {', '.join(names)}."
    path = figure_of(page, "ablations")
    results_figures.bars(table, path)
    yield f"\n![What each change does to MRR]({path.name})"


def verdicts(table: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Rows by what their interval says."""
    words: dict[str, list[str]] = {"Worse beyond chance": [], "Better beyond chance": [], "No difference shown": []}
    for name, row in table.items():
        gain = row["gain"]["all"]
        if name != ablations.DEFAULT and gain:
            word = "Worse beyond chance" if gain["high"] < 0 else "No difference shown"
            words["Better beyond chance" if gain["low"] > 0 else word].append(name)
    return words


def retraining(part: Mapping[str, Any], page: Path) -> Iterator[str]:
    found = part["found"]
    flops, mrr = found["flops"], found["mrr"]
    share = mrr["online"]["all"] / mrr["retrained"]["all"]
    cost = flops["online"] / flops["retrained"] if flops["retrained"] else float("nan")
    epochs = ", ".join(str(epochs) for epochs in sorted({one["epochs"] for one in found["times"]}))
    yield "\n## Against retraining\n"
    yield (
        f"The rival is the same system, made anew from everything so far every {found['every']:,} events "
        f"({len(found['times'])} times, {epochs} epochs, the best of {', '.join(found['times'][0]['tried'])} by the "
        "newest tenth) and frozen in between. Its counters run on; in the last row they are frozen too.\n"
    )
    yield from rankings(mrr)
    yield ""
    yield from differences(found["gains"])
    yield (
        f"\nLearning online reaches {share:.0%} of the retrained system's MRR for {cost:.0%} of its training FLOPs "
        f"({flops['online']:.3g} against {flops['retrained']:.3g}). Retraining costs more the longer the stream is: at "
        f"these costs an event, online is at a tenth from {flops['tenth']:,.0f} events on."
    )
    first = part["data"]["events"] - len_scored(found)
    marks = [one["events"] - first for one in found["times"] if one["events"] > first]
    yield from drawn(page, "retraining", "MRR between retrainings", found["curve"], marks)


def len_scored(found: Mapping[str, Any]) -> int:
    """Scored events of a part."""
    return int(found["curve"]["events"][-1])


def other(name: str, part: Mapping[str, Any], page: Path) -> Iterator[str]:
    found = part["found"]
    titles = {"globo": "News: globo", "ml-1m": "Films in users' order: ml-1m"}
    yield f"\n## {titles[name]}\n"
    size = f"{found['events']:,} events, {found['users']:,} users, {found['titles']:,} titles"
    if name == "globo":
        yield (
            f"{size}: the first clicks of a later day, learned from nothing. Articles have no text. Recent popularity "
            "is that of the last hour.\n"
        )
    else:
        yield (
            f"{size}. The file tells each user's order and the time of the user's last event only: the stream is each "
            "user's first events, half a minute apart, ending then. The numbers are about orders, not about time.\n"
        )
    yield from rankings(found["mrr"])
    yield ""
    yield from differences(found["gains"])
    yield from drawn(page, name, f"MRR over {name}", found["curve"])


def rates(part: Mapping[str, Any], page: Path) -> Iterator[str]:
    looks = part["found"]["looks"]
    yield "\n## The learner at full speed\n"
    yield (
        "Clicks of globo as fast as one thread learns them: as it is, without replay, and for "
        f"{part['found']['minutes']:g} minutes as the learner keeps up with {other_streams.FAST:,} events/s of log time: "
        "least replay, larger micro-batches, a fair sample of the events ranked. Memory holds the clicks that wait to "
        "be read and every user's history, too.\n"
    )
    yield "| | events | events/s, first | last | slowest | events/s of CPU, last | MiB, first | last | users |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for name, seen in looks.items():
        if seen:
            rate = [look["rate"] for look in seen]
            ends = [f"{rate[0]:,.0f}", f"{rate[-1]:,.0f}", f"{min(rate):,.0f}", f"{seen[-1]['cpu_rate']:,.0f}"]
            stream_state = [f"{seen[0]['resident']:,.0f}", f"{seen[-1]['resident']:,.0f}", f"{seen[-1]['users']:,.0f}"]
            yield f"| {name} | {seen[-1]['events']:,.0f} | " + " | ".join([*ends, *stream_state]) + " |"
    path = figure_of(page, "rates")
    results_figures.pace(looks, path)
    yield f"\n![Events a second and memory]({path.name})"


def figure_of(page: Path, name: str) -> Path:
    """Where a figure lies."""
    return page.with_name(f"{page.stem}-{name}.png")


def drawn(
    page: Path, name: str, title: str, curve: Mapping[str, Sequence[float]], marks: Sequence[int] = ()
) -> Iterator[str]:
    """Draw curves, and their line of the page."""
    path = figure_of(page, name)
    results_figures.curves(curve, LABELS, path, marks)
    yield f"\n![{title}]({path.name})"


def short(value: float | None) -> str:
    """.0123"""
    return "-" if value is None else f"{value:.4f}".removeprefix("0")


def signed(gain: Mapping[str, float] | None) -> str:
    """+.0012 [.0003, .0021]"""
    if gain is None:
        return "-"
    mean, low, high = (f"{gain[key]:+.4f}".replace("0.", ".", 1) for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"
