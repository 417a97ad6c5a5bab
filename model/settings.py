"""All settings of the model: sizes, training, ranking and the bounds of the stream state.

Every field that follows no other setting is a setting of the operator (`infra.model_settings`). The classes
live apart from the code that reads them, because commands read settings without importing PyTorch.
"""

from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from model.setting_fields import live, logged, require_order, shape


class BackboneSize(NamedTuple):
    """Size of the backbone's network; the blocks are where nearly all parameters are."""

    width: int = 64
    blocks: int = 2
    heads: int = 2


TASK_NAMES: Final = ("action", "genre")  # auxiliary tasks, model.sequence.tasks
PRESETS: Final[dict[str, BackboneSize]] = {
    "cpu": BackboneSize(),
    "2m": BackboneSize(192, 5, 4),
    "10m": BackboneSize(320, 9, 5),
    "50m": BackboneSize(640, 11, 10),
    "200m": BackboneSize(1152, 14, 18),
    "1b": BackboneSize(2048, 22, 32),
}


@dataclass(frozen=True)
class NetworkSettings:
    """Shape of the sequence network; `ObjectiveSettings` configures its training."""

    width: int = shape(64, "width of the backbone", 8, 8192)
    blocks: int = shape(2, "number of transformer blocks", 1, 128)
    heads: int = shape(2, "attention heads of each block; must divide the width", 1, 128)
    max_history: int = shape(100, "maximum number of events in a window", follows="model_history")
    d_text: int = logged(256, "width of a text embedding")
    d_id: int = shape(64, "width of an id embedding", 1, 1024)
    d_out: int = shape(64, "width of the scoring space", 1, 4096)
    actions: int = shape(16, "number of action codes; 0 marks the start token", follows="contract")
    horizons: tuple[int, ...] = shape((0, 3, 10), "horizons in events; each has its own list", follows="horizons")
    temperature: float = shape(0.07, "initial value of the learned temperature", 0.001, 10)
    min_temperature: float = live(0.02, "lower bound of the learned temperature", 0.001, 10)
    id_evidence: float = live(3.0, "events after which the id embedding has half of its full weight", 0.01, 1000)
    dropout: float = live(0.3, "dropout rate in training", 0, 0.9)
    use_text: bool = shape(True, "whether the title tower reads text embeddings; without: ids and counts only")
    time_bias: bool = shape(True, "whether attention has the relative time bias")
    tasks: tuple[str, ...] = shape((), "auxiliary tasks beside the next title: action, genre")

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"backbone.width {self.width} is no multiple of backbone.heads {self.heads}")
        if unknown := [task for task in self.tasks if task not in TASK_NAMES]:
            raise ValueError(f"backbone.tasks: {unknown[0]} is not one of {', '.join(TASK_NAMES)}")
        require_order("backbone", self, "min_temperature", "temperature")


def preset(name: str, horizons: tuple[int, ...] = NetworkSettings.horizons) -> NetworkSettings:
    """The settings of a named size in PRESETS.

    The scoring space has an eighth of the backbone's width, as in arXiv 2605.23312, but at least 64. Raises KeyError
    for an unknown name.
    """
    size = PRESETS[name]
    d_out = max(NetworkSettings.d_out, size.width // 8)
    return NetworkSettings(size.width, size.blocks, size.heads, d_out=d_out, horizons=horizons)


@dataclass(frozen=True)
class ObjectiveSettings:
    """Settings of the loss and its sampling."""

    negatives: int = live(512, "shared negatives of a training step", 1, 65_536)
    uniform_share: float = live(
        0.5, "share of the negatives drawn uniformly from the launched titles; the rest by frequency", 0, 1
    )
    target_windows: tuple[int, ...] = shape(
        (1, 5, 10), "events in each horizon's target set; 1: only the next event", follows="horizons"
    )
    half_life: float = live(2.0, "events after which weights within a target window halve", 0.01, 1000)
    horizon_share: float = live(0.5, "share of the events that also train another horizon", 0, 1)
    id_mask: float = live(0.1, "share of the ids masked in a training step", 0, 1)
    logq: Literal["corrected", "none"] = live(
        "corrected", "whether scores of negatives are corrected for how often they are sampled"
    )
    title_weight: float = live(1.0, "loss weight of the next title if there are auxiliary tasks", 0, 1000)
    task_weight: float = live(1.0, "loss weight of each auxiliary task", 0, 1000)


@dataclass(frozen=True)
class OptimSettings:
    """Settings of the backbone's two optimizers."""

    lr: float = live(2e-3, "learning rate of AdamW", 0, 1)
    weight_decay: float = live(0.01, "weight decay of AdamW and Muon; vectors are not decayed", 0, 1)
    row_lr: float = live(0.05, "learning rate of the id embeddings", 0, 10)
    row_decay: float = live(0.999, "decay per update of a row's sum of squared gradients", 0, 1)
    row_init: float = live(0.02, "standard deviation of a new id embedding", 0, 10)
    ema: float = live(0.95, "decay per step of the averaged weights, which are published", 0, 0.999999)
    max_norm_ratio: float = live(
        20.0, "a step is skipped if its gradient norm exceeds this many times the typical norm", 1, 1e9
    )
    matrix_optimizer: Literal["adamw", "muon"] = shape("adamw", "optimizer of the matrices of linear layers")
    muon_lr: float = live(0.02, "learning rate of Muon", 0, 10)


@dataclass(frozen=True)
class SequenceSettings:
    """Settings of the sequence model and its online training."""

    network: NetworkSettings = field(default_factory=NetworkSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    steps: int = live(2, "training steps per micro-batch, each on all new windows and some replayed ones", 0, 1000)
    replay_windows: int = live(12, "replayed windows per training step", 0, 65_536)
    replay_capacity: int = live(4096, "windows of the replay buffer", 1, 10_000_000)


@dataclass(frozen=True)
class RankerSettings:
    """Network, buffer and training of the ranker."""

    hard_negatives: int = live(32, "candidates sampled per example from the shortlist", 1, 1024)
    uniform_negatives: int = live(16, "candidates sampled per example from all titles", 0, 1024)
    hidden: tuple[int, int] = shape((96, 48), "widths of the two hidden layers, two numbers", 1, 4096)
    buffer_examples: int = live(12_288, "latest examples kept for training", 1, 10_000_000)
    batch_examples: int = live(192, "examples per training step", 2, 65_536)
    visits_per_example: float = live(7.0, "how often an example is trained on, on average", 0, 1000)
    max_steps: int = live(8, "training steps per micro-batch, at most", 0, 1000)
    learning_rate: float = live(2e-3, "learning rate of AdamW", 0, 1)
    ema_decay: float = live(0.98, "decay per step of the served weights' moving average", 0, 0.999999)


@dataclass(frozen=True)
class EvidenceSettings:
    """How much the events of new users and repeated events count in the counters of titles."""

    established_events: int = live(20, "events from which on a user is established; at 1, every user is", 1, 100_000)
    growth: float = live(2.0, "a new user's event counts (events so far / established_events) to this power", 0, 100)
    new_user_share: float = live(
        2.0, "a title may have this many times the usual ratio of new to established users", 0, 1e9
    )
    prior_events: float = live(0.5, "events of established users that each title is assumed to have already", 0, 1e6)
    ratio_events: int = live(5_000, "recent events over which the stream's ratio is taken", 1, 1_000_000_000)
    daily_repeats: int = live(3, "events of one user on one title that count within a day; 0: no limit", 0, 1_000_000)


@dataclass(frozen=True)
class StreamStateSettings:
    """The bounds of the stream state."""

    d_text: int = logged(256, "width of a text embedding")
    max_titles: int = live(200_000, "catalog size beyond which titles are evicted", follows="max_titles")
    min_users_before_launch: int = live(
        3, "distinct users with an event on an unlaunched title until it is learned", follows="min_users_before_launch"
    )
    max_users: int = live(200_000, "users beyond which the least recently active one is evicted", 1, 100_000_000)
    max_seen: int = shape(4096, "seen titles kept per user", 8, 1_000_000)
    history: int = shape(100, "events of a history that the signals read", follows="model_history")
    evidence: EvidenceSettings = field(default_factory=EvidenceSettings)


@dataclass(frozen=True)
class LearnerSettings:
    """All settings that the model's state depends on."""

    stream_state: StreamStateSettings = field(default_factory=StreamStateSettings)
    sequence: SequenceSettings = field(default_factory=SequenceSettings)
    ranker: RankerSettings = field(default_factory=RankerSettings)
    shortlist: int = live(400, "candidates that the ranker re-ranks", 1, 100_000)
    delayed_query_share: float = live(
        0.3, "share of the events that are also ranked as if the last few were unknown", 0, 1
    )
    repeats: bool = live(False, "users return to titles: seen titles stay candidates", follows="filter_seen")
    seed: int = shape(0, "random seed", follows="seed")


def with_text_width(settings: LearnerSettings, d_text: int) -> LearnerSettings:
    """The settings for text embeddings of another width."""
    network = replace(settings.sequence.network, d_text=d_text)
    stream_state = replace(settings.stream_state, d_text=d_text)
    return replace(settings, stream_state=stream_state, sequence=replace(settings.sequence, network=network))
