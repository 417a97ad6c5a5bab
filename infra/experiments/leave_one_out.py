"""`premiere evaluate --protocol leave-one-out`: the anchor in the literature, whatever it says of a stream.

The published protocol: of each user's order the last title is the test, the last but one the validation, all before
them training. Ranked is among all titles of the file less those in the user's order so far (the validation title is
known when the test title is asked for). No title is sampled away, and none that the file has is left out for being rare
(the usual files of ML-1M have lost titles of fewer than five events). A user of fewer than three titles is learned from
and not asked. Epochs are counted by NDCG@10 on the validation titles; the test is ranked once, by the weights of the
best epoch. The setting flatters everyone: a model learns from what others did after the moment that it is asked about,
so these numbers say nothing of a live stream, whose measure is prequential.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.text_encoders import Encoder
from infra.charts import COLOURS, LOOK, SERIES
from infra.errors import SettingsError
from infra.experiments.harness import Say
from infra.experiments.user_sequences import Orders
from infra.run.learn import numerics
from model.metrics.ranking import MEASURES, measures_of
from model.sequence.batch_training import catalog_of, epoch, history_of, ranks
from model.sequence.model import SequenceModel, SequenceSettings
from model.sequence.network import NetworkSettings
from model.sequence.objective import ObjectiveSettings
from model.sequence.optimizers import OptimSettings
from model.state.catalog import Catalog

TITLES: Final = 3  # of a user who is asked about
PUBLISHED: Final = {  # NDCG@10 and HR@10 on ML-1M, all by one program on one split: eSASRec's repository
    "SASRec, sampled softmax": (0.1684, 0.2929),
    "HSTU": (0.1719, 0.3037),
    "eSASRec": (0.1772, 0.3133),
    "FuXi-alpha": (0.1813, 0.3164),
}
ML_1M: Final = (6040, 999_611)  # users and events of the file that they were measured on


@dataclass(frozen=True)
class EpochSettings:
    """windows a step · most: epochs · every: epochs between two looks at the validation titles · patience: looks
    without a better one before it ends · seconds: of wall time, for training and looks."""

    windows: int = 64
    most: int = 100
    every: int = 1
    patience: int = 8
    seconds: float = 7200.0
    seed: int = 0


NETWORK: Final = NetworkSettings(history=200, horizons=(0,), temperature=0.05, dropout=0.2, time_bias=False)
SEQUENCE: Final = SequenceSettings(
    network=NETWORK,
    objective=ObjectiveSettings(uniform=1.0, windows=(1,), delayed=0.0, id_mask=0.0),
    optim=OptimSettings(row_lr=0.1, ema=0.99, matrices="muon"),
    steps=1,
    replayed=0,
    windows=1,
)


@dataclass(frozen=True)
class Split:
    """What is learned, and whose next title is asked for: (user, order before), and the title."""

    train: dict[str, NDArray[np.int64]]
    asked: dict[str, tuple[list[tuple[str, NDArray[np.int64]]], list[int]]]  # by "validation" and "test"
    count_V: NDArray[np.int64]  # events in training


def split(orders: Orders) -> Split:
    """Raises SettingsError where nobody has three titles."""
    long = {user: order_L for user, order_L in orders.users.items() if len(order_L) >= TITLES}
    if not long:
        raise SettingsError(f"Nobody in {orders.name} has {TITLES} titles: leave-one-out needs one each to learn from, "
                            "to stop by and to ask for.")  # fmt: skip
    train = {user: order_L[:-2] if user in long else order_L for user, order_L in orders.users.items()}
    asked = {
        "validation": ([(u, o[:-2]) for u, o in long.items()], [int(o[-2]) for o in long.values()]),
        "test": ([(u, o[:-1]) for u, o in long.items()], [int(o[-1]) for o in long.values()]),
    }
    everything = np.concatenate(list(train.values()))
    return Split(train, asked, np.bincount(everything, minlength=len(orders.titles)))


def measures(rank_N: NDArray[np.float64]) -> dict[str, float]:
    """MRR, HR@10 and NDCG@10."""
    mean_M = np.mean([measures_of(rank) for rank in rank_N.tolist()], 0)
    return dict(zip(MEASURES, mean_M.tolist(), strict=True))


def popularity(parts: Split) -> dict[str, float]:
    """The measures of the test titles by events in training: what knows nothing of users gets."""
    score_V = parts.count_V.astype(np.float64)
    found: list[float] = []
    for (_, order_L), target in zip(*parts.asked["test"], strict=True):
        own, seen_L = score_V[target], score_V[order_L]
        above = np.count_nonzero(score_V > own) - np.count_nonzero(seen_L > own)
        level = np.count_nonzero(score_V == own) - np.count_nonzero(seen_L == own)
        found.append(above + (level + 1) / 2)
    return measures(np.array(found))


def fit(
    model: SequenceModel, catalog: Catalog, parts: Split, settings: EpochSettings, say: Say
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Train until the validation titles are ranked no better; the curve, whose seconds are of training alone, and the
    served weights of its best epoch."""
    limit, rng = model.settings.network.history, np.random.default_rng(settings.seed)
    histories = [history_of(user, order_L, limit) for user, order_L in parts.train.items()]
    began, wall, cpu = time.monotonic(), 0.0, 0.0
    curve: list[dict[str, float]] = []
    best: dict[str, Any] = {}
    for number in range(1, settings.most + 1):
        start, start_cpu = time.monotonic(), time.process_time()
        loss = epoch(model, catalog, histories, settings.windows, rng)
        wall, cpu = wall + time.monotonic() - start, cpu + time.process_time() - start_cpu
        over = number == settings.most or time.monotonic() - began > settings.seconds
        if number % settings.every and not over:
            continue
        found = measures(ranks(model, catalog, *parts.asked["validation"]))
        curve.append({"epoch": number, "seconds": wall, "cpu_seconds": cpu, "loss": loss, **found})
        say(f"epoch {number:>3}  {wall:>6.0f} s  loss {loss:.4f}  validation NDCG@10 "
            f"{found['ndcg10']:.4f}  HR@10 {found['hr10']:.4f}")  # fmt: skip
        if curve[-1] is _best(curve):
            best = model.served_state(len(catalog))
        waited = number - _best(curve)["epoch"]
        if over or waited >= settings.patience * settings.every:
            break
    return curve, best


def _best(curve: Sequence[dict[str, float]]) -> dict[str, float]:
    return max(curve, key=lambda look: look["ndcg10"])


def report(
    orders: Orders,
    encode: Encoder | None,
    say: Say,
    sequence: SequenceSettings = SEQUENCE,
    settings: EpochSettings | None = None,
    threads: int = 1,
) -> dict[str, Any]:
    """The measures of validation and test, the curve, and what was trained. Without an encoder ids alone are read, as
    the published models do. Raises SettingsError."""
    numerics(threads)
    settings = settings or EpochSettings()
    texts = encode is not None and any(orders.texts)
    network = replace(sequence.network, semantic=texts)
    sequence = replace(sequence, network=network)
    parts = split(orders)
    text_VS = encode(orders.texts) if encode is not None else np.zeros((len(orders.titles), network.d_text), np.float32)
    catalog = catalog_of(orders.titles, text_VS, parts.count_V)
    model = SequenceModel(sequence, settings.seed)
    curve, best = fit(model, catalog, parts, settings, say)
    model.load_served(best)
    test = measures(ranks(model, catalog, *parts.asked["test"]))
    return {
        "data": orders.name,
        "simulated": orders.simulated,
        "events": len(orders),
        "users": len(orders.users),
        "asked": len(parts.asked["test"][1]),
        "titles": len(orders.titles),
        "texts": texts,
        "threads": threads,
        "parameters": {
            "backbone": sum(p.numel() for p in model.network.backbone.parameters()),
            "network": sum(p.numel() for p in model.network.parameters()),
            "id_rows": len(orders.titles) * network.d_id,
        },
        "settings": {"sequence": asdict(sequence), "epochs": asdict(settings)},
        "curve": curve,
        "best": _best(curve),
        "validation": {name: _best(curve)[name] for name in MEASURES},
        "test": test,
        "popularity": popularity(parts),
        "published": PUBLISHED if (len(orders.users), len(orders)) == ML_1M else {},
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The report for reading."""
    best, sizes = found["best"], found["parameters"]
    what = "texts and ids" if found["texts"] else "ids alone"
    yield f"{found['data']}: {found['events']:,} events, {found['titles']:,} titles ({what} are read),"
    yield f"{found['users']:,} users, of whom {found['asked']:,} are asked about"
    yield f"parameters: backbone {sizes['backbone']:,}, network {sizes['network']:,}, id rows {sizes['id_rows']:,}"
    spent = f"{best['seconds']:,.0f} s on {found['threads']} threads ({best['cpu_seconds']:,.0f} s of CPU)"
    yield f"best of {found['curve'][-1]['epoch']:.0f} epochs by validation: {best['epoch']:.0f}, after {spent}"
    yield ""
    yield f"{'':<28}{'NDCG@10':>9}{'HR@10':>9}{'MRR':>9}"
    rows = {"test": found["test"], "validation": found["validation"], "popularity, test": found["popularity"]}
    for name, one in rows.items():
        yield f"{name:<28}{one['ndcg10']:>9.4f}{one['hr10']:>9.4f}{one['mrr']:>9.4f}"
    for name, (ndcg, hr) in found["published"].items():
        yield f"{name + ' (published)':<28}{ndcg:>9.4f}{hr:>9.4f}"


def draw(found: Mapping[str, Any], path: Path) -> None:
    """NDCG@10 of the validation titles over the minutes, with the test's and the published (PNG)."""
    import matplotlib.pyplot as plt

    with plt.rc_context(LOOK):
        figure, axes = plt.subplots(figsize=(9.5, 4.8), layout="constrained")
        minutes = [look["seconds"] / 60 for look in found["curve"]]
        axes.plot(minutes, [look["ndcg10"] for look in found["curve"]], "o-", color=COLOURS["full"], lw=2, ms=4,
                  label="validation")  # fmt: skip
        at = found["best"]["seconds"] / 60
        axes.plot([at], [found["test"]["ndcg10"]], "*", color="black", ms=14, label="test, best epoch")
        for colour, (name, (ndcg, _)) in zip(SERIES, found["published"].items(), strict=False):
            axes.axhline(ndcg, color=colour, ls="--", lw=1.4, label=f"{name} (published, test)")
        axes.set(xlabel=f"minutes on {found['threads']} threads", ylabel="NDCG@10", title=found["data"])
        axes.legend(loc="lower right")
        figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
        plt.close(figure)
