"""Does each part of the model earn its place? The model with one thing changed at a time, all on one stream.

Rows are grouped so that an interrupted run loses one group and not all. Each group holds the model as it is, which
comes out the same to the last bit in each of them (it shares nothing but the memory, which learns nothing from
contenders), so that the groups make one table. Rows about the ranker read the default's backbone: only what they change
differs. What changes the memory itself has a stream of its own, the same events in the same order.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from features.text_encoders import Encoder
from infra.data.datasets import DataSet
from infra.experiments.harness import ALONE, Instrumented, Recorded, Say, stream, watched
from model.learner import Learner, LearnerSettings
from model.signals.ranker import Ranker
from model.signals.table import SIGNALS

DEFAULT: Final = "default"
LONGEST: Final = 200  # events of a history that the stream carries: the most that a row asks for

Change = Callable[[LearnerSettings], LearnerSettings]

_PATTERNS: Final[dict[str, str]] = {  # the first that fits a signal's name says its group
    "backbone": r"backbone",
    "text": r"^text|has text|neighbours",
    "popularity": r"popular|quiet|stage",
    "counts of 0 and 1": r"no event yet|one event",
    "what follows": r"follow|near (recent|share)",
    "what goes together": r"together",
    "users alike": r"alike|around|takers",
    "genres and years": r"genre|year|^eras",
    "liking": r"lik(ed|ing)$",
    "age": r"^age|not out yet",
    "the user's tempo": r"user events|gap|sitting|tempo|delay",
}


def groups(names: Sequence[str] = SIGNALS) -> dict[str, tuple[str, ...]]:
    """The ranker's signals by what they are about; those of no known name are `other`."""
    found: dict[str, list[str]] = {}
    for name in names:
        group = next((group for group, words in _PATTERNS.items() if re.search(words, name)), "other")
        found.setdefault(group, []).append(name)
    return {group: tuple(members) for group, members in found.items()}


@dataclass(frozen=True)
class Row:
    """One line of the table. change: of the settings · without: signals hidden · rankers: averaged · lend: read the
    default's backbone · delayed: learn from delayed questions · apart: a stream of its own."""

    label: str
    change: Change = field(default=lambda settings: settings)
    without: tuple[str, ...] = ()
    rankers: int = 1
    lend: bool = False
    delayed: bool = True
    apart: bool = False


class Averaged(Ranker):
    """Several rankers from different beginnings, which rank by the mean of their scores."""

    def __init__(self, settings: LearnerSettings, many: int) -> None:
        super().__init__(settings.ranker, settings.seed)
        self.others = [Ranker(settings.ranker, settings.seed + 1 + n) for n in range(many - 1)]

    def score(self, signals_CF: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = [super().score(signals_CF), *(one.score(signals_CF) for one in self.others)]
        mean_C: NDArray[np.float32] = np.mean(scores, axis=0, dtype=np.float32)
        return mean_C

    def remember(self, signals_KF: NDArray[np.float32], log_share_K: NDArray[np.float32]) -> None:
        for remember in (super().remember, *(one.remember for one in self.others)):
            remember(signals_KF, log_share_K)

    def learn(self) -> float | None:
        loss = super().learn()
        for one in self.others:
            one.learn()
        return loss


class Blind(Ranker):
    """A ranker without some signals, for the shortlist too."""

    def __init__(self, settings: LearnerSettings, without: tuple[str, ...]) -> None:
        super().__init__(settings.ranker, settings.seed, without)
        kept_D = torch.tensor([float(name not in without) for name in SIGNALS[: len(self.linear_D)]])
        with torch.no_grad():
            self.linear_D.mul_(kept_D)
        self.linear_D.register_hook(lambda grad_D: grad_D * kept_D)  # type: ignore[no-untyped-call]


def network(**changes: Any) -> Change:
    return lambda s: replace(s, sequence=replace(s.sequence, network=replace(s.sequence.network, **changes)))


def objective(**changes: Any) -> Change:
    return lambda s: replace(s, sequence=replace(s.sequence, objective=replace(s.sequence.objective, **changes)))


def optim(**changes: Any) -> Change:
    return lambda s: replace(s, sequence=replace(s.sequence, optim=replace(s.sequence.optim, **changes)))


def sequence(**changes: Any) -> Change:
    return lambda s: replace(s, sequence=replace(s.sequence, **changes))


def counters(**changes: Any) -> Change:
    return lambda s: replace(s, memory=replace(s.memory, **changes))


def one_horizon(settings: LearnerSettings) -> LearnerSettings:
    return objective(windows=settings.sequence.objective.windows[:1])(network(horizons=(0,))(settings))


def replayed(share: float) -> Change:
    return lambda s: sequence(replayed=round(s.sequence.replayed * share))(s)


def tables(cold: float, names: Sequence[str] = SIGNALS) -> dict[str, list[Row]]:
    """The rows by group; `cold` is the measured share of events whose title has none."""
    return {
        "titles": [
            Row("no semantic tower", network(semantic=False)),
            Row("ids never masked", objective(id_mask=0.0)),
            Row(f"ids masked as measured ({cold:.2f})", objective(id_mask=round(cold, 3))),
            Row("ids masked by half", objective(id_mask=0.5)),
            Row("ids not moved by replay", objective(replayed_ids=False)),
        ],
        "loss": [
            Row("logQ: none", objective(logq="none")),
            Row("logQ: naive", objective(logq="naive")),
            Row("one horizon, no delayed questions", one_horizon, delayed=False),
            Row("no time bias", network(time_bias=False)),
        ],
        "replay": [
            Row("no replay", replayed(0)),
            Row("half the replay", replayed(0.5)),
            Row("double the replay", replayed(2)),
            Row("replayed windows shortened at random", sequence(shortened=True)),
        ],
        "optimisers": [
            Row("no average of weights", optim(ema=0.0)),
            Row("average .9", optim(ema=0.9)),
            Row("average .98", optim(ema=0.98)),
            Row("Muon on matrices", optim(matrices="muon")),
            Row("Muon, a quarter of its rate", optim(matrices="muon", muon_lr=0.005)),
            Row("row-wise Adagrad without decay", optim(row_decay=1.0)),
        ],
        "histories": [
            Row("backbone reads 25 events", network(history=25)),
            Row("backbone reads 50 events", network(history=50)),
            Row("backbone reads 200 events", network(history=200)),
            Row("counters read 25 events", counters(history=25), apart=True),
            Row("counters read 200 events", counters(history=200), apart=True),
        ],
        "ranker": [
            Row("no delayed questions", lend=True, delayed=False),
            Row("two rankers averaged", rankers=2, lend=True),
            Row("three rankers averaged", rankers=3, lend=True),
            *(Row(f"without {group}", without=hidden, lend=True) for group, hidden in groups(names).items()),
        ],
    }


def pipeline(row: Row, settings: LearnerSettings, shared_backbone: Instrumented | None = None) -> Instrumented:
    """The contender of a row."""
    changed = row.change(settings)
    made = watched(changed, not row.lend, shared_backbone=shared_backbone if row.lend else None, delayed=row.delayed)
    if row.rankers > 1:
        made.ranker = Averaged(changed, row.rankers)
    elif row.lend:
        made.ranker = Blind(changed, row.without)
    return made


def run(
    rows: Sequence[Row], data: DataSet, encode: Encoder, settings: LearnerSettings, say: Say
) -> dict[str, dict[str, Any]]:
    """Each row's measures, the default's first."""
    shared_backbone = watched(settings)
    pipelines = {DEFAULT: shared_backbone} | {
        r.label: pipeline(r, settings, shared_backbone) for r in rows if not r.apart
    }
    recorded = stream(data, encode, Learner(settings, dict(pipelines)), say, history=LONGEST)
    for one in (row for row in rows if row.apart):
        pipelines[one.label] = pipeline(one, settings)
        changed = Learner(one.change(settings), {one.label: pipelines[one.label]})
        recorded.ranks |= stream(data, encode, changed, say, history=LONGEST).ranks
    return {name: measures(recorded, name, watching) for name, watching in pipelines.items()}


def measures(recorded: Recorded, name: str, watching: Instrumented) -> dict[str, Any]:
    """What the table says of a row."""
    own = watching.sequence is not None
    return {
        "mrr": recorded.mrr(name),
        "gain": recorded.gain(name, DEFAULT),
        "alone": recorded.mrr(name + ALONE) if own else None,
        "alone_gain": recorded.gain(name + ALONE, DEFAULT + ALONE) if own else None,
        "seconds": watching.seconds,
        "events": len(recorded),
    }


def merged(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Groups as one table; raises AssertionError where the default is not the same in all."""
    table: dict[str, dict[str, Any]] = {}
    for rows in found.values():
        assert table.get(DEFAULT, rows[DEFAULT])["mrr"] == rows[DEFAULT]["mrr"], "groups of different runs"
        table |= {label: row for label, row in rows.items() if label not in table}
    return table
