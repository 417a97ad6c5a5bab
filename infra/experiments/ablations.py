"""Ablations: the model with one part changed at a time, all on one stream.

The ablations run in groups, so that an interrupted run loses one group only. Every group also runs the default model.
Its results are bit-identical in all groups, because variants share only the stream state, which does not depend on
them. The groups can therefore be merged into one table. Ablations of the ranker read the default's backbone, so nothing
else differs. An ablation of the stream state runs on a stream of its own, with the same events in the same order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch

from features.text_encoders import Encoder
from infra.data.datasets import Dataset
from infra.experiments.backbone_ranks import BackboneRanks, backbone_only
from infra.experiments.harness import ScoredEvents, run_prequential
from infra.experiments.variants import SharedBackbone, Timed, WithoutDelayed
from infra.progress import Reporter
from model.learner import Learner
from model.pipeline import Pipeline, RankingPipeline, new_pipeline
from model.settings import LearnerSettings
from model.signals.ranker import Ranker
from model.signals.table import DENSE_SIGNALS, signal_infos

DEFAULT: Final = "default"
MAX_HISTORY: Final = 200  # events per history in the stream: the largest number that an ablation reads

Change = Callable[[LearnerSettings], LearnerSettings]


def signal_groups() -> dict[str, tuple[str, ...]]:
    """The ranker's signals by the ablation group of the signal table."""
    by_group: dict[str, list[str]] = {}
    for info in signal_infos():
        by_group.setdefault(info.group, []).append(info.name)
    return {group: tuple(members) for group, members in by_group.items()}


@dataclass(frozen=True)
class Ablation:
    """One row of the table: what differs from the default model."""

    label: str
    change: Change = field(default=lambda settings: settings)
    hidden_signals: tuple[str, ...] = ()
    shares_backbone: bool = False  # read the default's backbone
    learns_delayed: bool = True  # the ranker learns from delayed requests
    own_stream: bool = False


def masked_ranker(settings: LearnerSettings, hidden: tuple[str, ...]) -> Ranker:
    """A ranker that does not read some signals, in its network or in the linear score of the shortlist."""
    ranker = Ranker(settings.ranker, settings.seed, hidden)
    kept_F = torch.tensor([float(name not in hidden) for name in DENSE_SIGNALS])
    with torch.no_grad():
        ranker.linear_F.mul_(kept_F)
    ranker.linear_F.register_hook(lambda grad_F: grad_F * kept_F)  # type: ignore[no-untyped-call]
    return ranker


def network(**changes: Any) -> Change:
    return lambda s: replace(s, sequence=replace(s.sequence, network=replace(s.sequence.network, **changes)))


def objective(**changes: Any) -> Change:
    return lambda s: replace(s, sequence=replace(s.sequence, objective=replace(s.sequence.objective, **changes)))


def optim(**changes: Any) -> Change:
    return lambda s: replace(s, sequence=replace(s.sequence, optim=replace(s.sequence.optim, **changes)))


def sequence(**changes: Any) -> Change:
    return lambda s: replace(s, sequence=replace(s.sequence, **changes))


def counters(**changes: Any) -> Change:
    return lambda s: replace(s, stream_state=replace(s.stream_state, **changes))


def one_horizon(settings: LearnerSettings) -> LearnerSettings:
    return objective(target_windows=settings.sequence.objective.target_windows[:1])(network(horizons=(0,))(settings))


def scaled_replay(share: float) -> Change:
    return lambda s: sequence(replay_windows=round(s.sequence.replay_windows * share))(s)


def ablation_groups(cold: float) -> dict[str, list[Ablation]]:
    """The ablations by group. `cold`: the share of events on titles without earlier events, as measured in the data."""
    return {
        "titles": [
            Ablation("no text tower", network(use_text=False)),
            Ablation("ids never masked", objective(id_mask=0.0)),
            Ablation(f"ids masked as measured ({cold:.2f})", objective(id_mask=round(cold, 3))),
            Ablation("half of the ids masked", objective(id_mask=0.5)),
        ],
        "loss": [
            Ablation("logQ: none", objective(logq="none")),
            Ablation("one horizon, no delayed requests", one_horizon, learns_delayed=False),
            Ablation("no time bias", network(time_bias=False)),
        ],
        "replay": [
            Ablation("no replay", scaled_replay(0)),
            Ablation("half the replay", scaled_replay(0.5)),
            Ablation("double the replay", scaled_replay(2)),
        ],
        "optimizers": [
            Ablation("no weight averaging", optim(ema=0.0)),
            Ablation("weight average 0.9", optim(ema=0.9)),
            Ablation("weight average 0.98", optim(ema=0.98)),
            Ablation("Muon for matrices", optim(matrix_optimizer="muon")),
            Ablation("Muon, a quarter of the learning rate", optim(matrix_optimizer="muon", muon_lr=0.005)),
            Ablation("row-wise Adagrad without decay", optim(row_decay=1.0)),
        ],
        "histories": [
            Ablation("backbone reads 25 events", network(max_history=25)),
            Ablation("backbone reads 50 events", network(max_history=50)),
            Ablation("backbone reads 200 events", network(max_history=200)),
            Ablation("counters read 25 events", counters(history=25), own_stream=True),
            Ablation("counters read 200 events", counters(history=200), own_stream=True),
        ],
        "ranker": [
            Ablation("no delayed requests", shares_backbone=True, learns_delayed=False),
            *(
                Ablation(f"without {group}", hidden_signals=hidden, shares_backbone=True)
                for group, hidden in signal_groups().items()
            ),
        ],
    }


def ablated_pipeline(ablation: Ablation, settings: LearnerSettings) -> RankingPipeline:
    """A new pipeline with the change of an ablation."""
    changed = ablation.change(settings)
    pipeline = new_pipeline(changed, backbone=not ablation.shares_backbone)
    if ablation.shares_backbone:
        pipeline.ranker = masked_ranker(changed, ablation.hidden_signals)
    return pipeline


def variant_of(ablation: Ablation, pipeline: RankingPipeline, default: RankingPipeline) -> Timed:
    """The variant that the learner runs: around the ablation's pipeline, with the backbone of `default` if it shares
    it."""
    variant: Pipeline = SharedBackbone(pipeline, default) if ablation.shares_backbone else pipeline
    return Timed(variant if ablation.learns_delayed else WithoutDelayed(variant))


def run(
    ablations: Sequence[Ablation], data: Dataset, encode: Encoder, settings: LearnerSettings, progress: Reporter
) -> dict[str, dict[str, Any]]:
    """The results of the default and of each ablation, by label."""

    def on_stream(stream: LearnerSettings, rows: Sequence[Ablation]) -> tuple[ScoredEvents, dict[str, Timed]]:
        pipelines = {row.label: ablated_pipeline(row, settings) for row in rows}
        default = pipelines[rows[0].label]
        variants = {row.label: variant_of(row, pipelines[row.label], default) for row in rows}
        learner, ranks = Learner(stream, variants), BackboneRanks(pipelines, settings.repeats)
        return run_prequential(data, encode, learner, progress, [ranks], history=MAX_HISTORY), variants

    shared = [Ablation(DEFAULT), *(ablation for ablation in ablations if not ablation.own_stream)]
    recorded, variants = on_stream(settings, shared)
    for ablation in (ablation for ablation in ablations if ablation.own_stream):
        alone, own = on_stream(ablation.change(settings), [ablation])
        recorded.ranks |= alone.ranks
        variants |= own
    return {name: row_of(recorded, name, variant) for name, variant in variants.items()}


def row_of(recorded: ScoredEvents, name: str, variant: Timed) -> dict[str, Any]:
    """The results of one variant. The backbone-only results are None if it reads the default's backbone."""
    own, default = backbone_only(name), backbone_only(DEFAULT)
    has_backbone = variant.sequence is not None
    return {
        "mrr": recorded.mrr(name),
        "gain": recorded.gain(name, DEFAULT),
        "backbone_only_mrr": recorded.mrr(own) if has_backbone else None,
        "backbone_only_gain": recorded.gain(own, default) if has_backbone else None,
        "cpu_seconds": variant.cpu_seconds,
        "events": len(recorded),
    }


def merge_groups(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """All groups as one table. Raises AssertionError if the default's results differ between groups."""
    table: dict[str, dict[str, Any]] = {}
    for rows in groups.values():
        assert table.get(DEFAULT, rows[DEFAULT])["mrr"] == rows[DEFAULT]["mrr"], "groups of different runs"
        table |= {label: row for label, row in rows.items() if label not in table}
    return table
