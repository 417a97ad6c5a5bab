"""`premiere leave-one-out`: the evaluation protocol of the literature, for comparison with published results.

The last title of each user is the test target, the one before it the validation target, and the earlier titles are for
training. The target is ranked among all titles of the file except the earlier titles of its user (when the test target
is ranked, the validation title is one of them). Candidates are not sampled, and rare titles are not removed; the usual
files of ML-1M lack titles with fewer than five events. A user with fewer than three titles is only trained on. Training
stops by NDCG@10 on the validation targets. The test targets are ranked once, with the weights of the best epoch.

The protocol is optimistic for every model: training uses what other users did after the target event. These numbers
therefore do not predict the quality on a live stream; a prequential evaluation does.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.text_encoders import Encoder
from infra.charts import COLORS, SERIES_COLORS, figure
from infra.errors import SettingsError
from infra.experiments.user_sequences import UserSequences
from infra.learner_settings import set_threads
from infra.progress import Reporter
from model.metrics.ranking import RANKING_METRICS, ranking_metrics
from model.sequence.batch_training import build_catalog, rank_targets, train_epoch, untimed_history
from model.sequence.model import SequenceModel
from model.settings import NetworkSettings, ObjectiveSettings, OptimSettings, SequenceSettings
from model.state.catalog import Catalog

MIN_USER_TITLES: Final = 3  # of a user with held-out titles
PUBLISHED: Final = {  # NDCG@10 and HR@10 on ML-1M, all from one program and one split: the repository of eSASRec
    "SASRec, sampled softmax": (0.1684, 0.2929),
    "HSTU": (0.1719, 0.3037),
    "eSASRec": (0.1772, 0.3133),
    "FuXi-alpha": (0.1813, 0.3164),
}
ML_1M: Final = (6040, 999_611)  # users and events of the file behind PUBLISHED


@dataclass(frozen=True)
class EpochSettings:
    """How long to train, and in what steps."""

    step_windows: int = 64  # windows per training step
    max_epochs: int = 100
    eval_every: int = 1  # epochs between two validations
    patience: int = 8  # validations without improvement before training stops
    max_seconds: float = 7200.0  # wall time of training and validation
    seed: int = 0


NETWORK: Final = NetworkSettings(max_history=200, horizons=(0,), temperature=0.05, dropout=0.2, time_bias=False)
SEQUENCE: Final = SequenceSettings(
    network=NETWORK,
    objective=ObjectiveSettings(uniform_share=1.0, target_windows=(1,), horizon_share=0.0, id_mask=0.0),
    optim=OptimSettings(row_lr=0.1, ema=0.99, matrix_optimizer="muon"),
    steps=1,
    replay_windows=0,
    replay_capacity=1,
)


@dataclass(frozen=True)
class Split:
    """The training sequences and the held-out targets."""

    train: dict[str, NDArray[np.int64]]  # user -> title_L
    held_out: dict[str, tuple[list[tuple[str, NDArray[np.int64]]], list[int]]]  # by "validation" and "test": each
    # user with the earlier titles, and the targets in the same order
    count_V: NDArray[np.int64]  # training events by title


def split(sequences: UserSequences) -> Split:
    """Raises SettingsError if no user has three titles."""
    long = {user: title_L for user, title_L in sequences.sequences.items() if len(title_L) >= MIN_USER_TITLES}
    if not long:
        raise SettingsError(
            f"No user in {sequences.name} has {MIN_USER_TITLES} titles: leave-one-out needs one each for training, "
            "validation and test."
        )
    train = {user: title_L[:-2] if user in long else title_L for user, title_L in sequences.sequences.items()}
    held_out = {
        "validation": ([(user, t[:-2]) for user, t in long.items()], [int(t[-2]) for t in long.values()]),
        "test": ([(user, t[:-1]) for user, t in long.items()], [int(t[-1]) for t in long.values()]),
    }
    all_titles = np.concatenate(list(train.values()))
    return Split(train, held_out, np.bincount(all_titles, minlength=len(sequences.titles)))


def metrics(rank_N: NDArray[np.float64]) -> dict[str, float]:
    """MRR, HR@10 and NDCG@10."""
    mean_M = np.mean([ranking_metrics(rank) for rank in rank_N.tolist()], 0)
    return dict(zip(RANKING_METRICS, mean_M.tolist(), strict=True))


def popularity_baseline(parts: Split) -> dict[str, float]:
    """The metrics of the test targets ranked by training events."""
    score_V = parts.count_V.astype(np.float64)
    ranks: list[float] = []
    for (_, title_L), target in zip(*parts.held_out["test"], strict=True):
        score, seen_L = score_V[target], score_V[title_L]
        above = np.count_nonzero(score_V > score) - np.count_nonzero(seen_L > score)
        tied = np.count_nonzero(score_V == score) - np.count_nonzero(seen_L == score)
        ranks.append(above + (tied + 1) / 2)
    return metrics(np.array(ranks))


def fit(
    model: SequenceModel, catalog: Catalog, parts: Split, settings: EpochSettings, progress: Reporter
) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Train until the validation metric stops improving. Returns the curve, whose seconds are those of training only,
    and the served weights of the best epoch."""
    limit, rng = model.settings.network.max_history, np.random.default_rng(settings.seed)
    histories = [untimed_history(user, title_L, limit) for user, title_L in parts.train.items()]
    began, wall, cpu = time.monotonic(), 0.0, 0.0
    curve: list[dict[str, float]] = []
    best: dict[str, Any] = {}
    for number in range(1, settings.max_epochs + 1):
        start, start_cpu = time.monotonic(), time.process_time()
        loss = train_epoch(model, catalog, histories, settings.step_windows, rng)
        wall, cpu = wall + time.monotonic() - start, cpu + time.process_time() - start_cpu
        last = number == settings.max_epochs or time.monotonic() - began > settings.max_seconds
        if number % settings.eval_every and not last:
            continue
        validation = metrics(rank_targets(model, catalog, *parts.held_out["validation"]))
        curve.append({"epoch": number, "seconds": wall, "cpu_seconds": cpu, "loss": loss, **validation})
        progress.line(f"epoch {number:>3}  {wall:>6.0f} s  loss {loss:.4f}  validation NDCG@10 "
            f"{validation['ndcg10']:.4f}  HR@10 {validation['hr10']:.4f}")  # fmt: skip
        if curve[-1] is _best(curve):
            best = model.served_state(len(catalog))
        waited = number - _best(curve)["epoch"]
        if last or waited >= settings.patience * settings.eval_every:
            break
    return curve, best


def _best(curve: Sequence[dict[str, float]]) -> dict[str, float]:
    return max(curve, key=lambda point: point["ndcg10"])


def report(
    sequences: UserSequences,
    encode: Encoder | None,
    progress: Reporter,
    sequence: SequenceSettings = SEQUENCE,
    settings: EpochSettings | None = None,
    threads: int = 1,
) -> dict[str, Any]:
    """The validation and test metrics, the curve, and the settings. Without an encoder, titles are represented by ids
    only, as in the published models. Raises SettingsError."""
    set_threads(threads)
    settings = settings or EpochSettings()
    texts = encode is not None and any(sequences.texts)
    no_text_VE = np.zeros((len(sequences.titles), sequence.network.d_text), np.float32)
    text_VE = no_text_VE if encode is None else encode(sequences.texts)
    network = replace(sequence.network, use_text=texts, d_text=text_VE.shape[1])
    sequence = replace(sequence, network=network)
    parts = split(sequences)
    catalog = build_catalog(sequences.titles, text_VE, parts.count_V)
    model = SequenceModel(sequence, settings.seed)
    curve, best = fit(model, catalog, parts, settings, progress)
    model.load_served(best)
    test = metrics(rank_targets(model, catalog, *parts.held_out["test"]))
    return {
        "data": sequences.name,
        "simulated": sequences.simulated,
        "events": len(sequences),
        "users": len(sequences.sequences),
        "test_users": len(parts.held_out["test"][1]),
        "titles": len(sequences.titles),
        "texts": texts,
        "threads": threads,
        "parameters": {
            "backbone": sum(p.numel() for p in model.network.backbone.parameters()),
            "network": sum(p.numel() for p in model.network.parameters()),
            "id_rows": len(sequences.titles) * network.d_id,
        },
        "settings": {"sequence": asdict(sequence), "epochs": asdict(settings)},
        "curve": curve,
        "best": _best(curve),
        "validation": {name: _best(curve)[name] for name in RANKING_METRICS},
        "test": test,
        "popularity": popularity_baseline(parts),
        "published": PUBLISHED if (len(sequences.sequences), len(sequences)) == ML_1M else {},
    }


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The report as lines of text."""
    best, sizes = result["best"], result["parameters"]
    inputs = "texts and ids" if result["texts"] else "ids only"
    yield f"{result['data']}: {result['events']:,} events, {result['titles']:,} titles ({inputs}),"
    yield f"{result['users']:,} users, {result['test_users']:,} of them with held-out titles"
    yield f"parameters: backbone {sizes['backbone']:,}, network {sizes['network']:,}, id rows {sizes['id_rows']:,}"
    spent = f"{best['seconds']:,.0f} s on {result['threads']} threads ({best['cpu_seconds']:,.0f} s of CPU)"
    yield f"best of {result['curve'][-1]['epoch']:.0f} epochs by validation: {best['epoch']:.0f}, after {spent}"
    yield ""
    yield f"{'':<28}{'NDCG@10':>9}{'HR@10':>9}{'MRR':>9}"
    rows = {"test": result["test"], "validation": result["validation"], "popularity, test": result["popularity"]}
    for name, row in rows.items():
        yield f"{name:<28}{row['ndcg10']:>9.4f}{row['hr10']:>9.4f}{row['mrr']:>9.4f}"
    for name, (ndcg, hr) in result["published"].items():
        yield f"{name + ' (published)':<28}{ndcg:>9.4f}{hr:>9.4f}"


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Validation NDCG@10 over training time, with the test result and published results."""
    with figure(path, (9.5, 4.8)) as (axes,):
        curve = result["curve"]
        minutes, ndcg_of_epoch = [point["seconds"] / 60 for point in curve], [point["ndcg10"] for point in curve]
        axes.plot(minutes, ndcg_of_epoch, "o-", color=COLORS["full"], lw=2, ms=4, label="validation")
        best_minutes = result["best"]["seconds"] / 60
        axes.plot([best_minutes], [result["test"]["ndcg10"]], "*", color="black", ms=14, label="test, best epoch")
        for color, (name, (ndcg, _)) in zip(SERIES_COLORS, result["published"].items(), strict=False):
            axes.axhline(ndcg, color=color, ls="--", lw=1.4, label=f"{name} (published, test)")
        axes.set(xlabel=f"minutes on {result['threads']} threads", ylabel="NDCG@10", title=result["data"])
        axes.legend(loc="lower right")
