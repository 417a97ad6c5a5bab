"""The parts of a batch retraining: training windows of all histories so far, a new network trained on them, a new
ranker trained on stored examples, and an estimate of the training FLOPs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from infra.experiments.prequential import MicroBatch
from model.actions import TARGET_WEIGHTS
from model.metrics.ranking import average_rank
from model.pipeline import RankingPipeline
from model.sequence.flops import flop_counter
from model.sequence.model import SequenceModel
from model.settings import LearnerSettings, RankerSettings
from model.signals.ranker import Ranker
from model.signals.snapshot import take_snapshot
from model.state.stream_state import History, StreamState, UserUpdate

WINDOWS_PER_STEP: Final = 8  # of the retrained network
COUNT_EVERY_STEPS: Final = 20  # the FLOPs of every 20th step are counted
MAX_EXAMPLES: Final = 32_768  # maximum number of examples for the retrained ranker: the newest ones
T = TypeVar("T")

TrainingWindow = tuple[History, list[int]]  # a window, and the indices of its target events


class FlopEstimator:
    """Estimates the FLOPs of many steps from the count of one step in COUNT_EVERY_STEPS."""

    def __init__(self) -> None:
        self.steps = self.counted = 0
        self.flops = 0.0

    def run(self, step: Callable[[], T]) -> T:
        """Run a step, and count its FLOPs if it is due."""
        self.steps += 1
        if (self.steps - 1) % COUNT_EVERY_STEPS:
            return step()
        with flop_counter() as counter:
            result = step()
        self.counted += 1
        self.flops += float(counter.get_total_flops())
        return result

    def total(self) -> float:
        """The estimated FLOPs of all steps."""
        return self.flops / max(self.counted, 1) * self.steps


class EventHistories:
    """All events so far by user, with the number of each event in the stream."""

    def __init__(self) -> None:
        self.by_user: dict[str, list[tuple[str, int, int, int]]] = {}  # title, ms, action, number

    def add(self, batch: MicroBatch) -> None:
        """Add the new events of a micro-batch."""
        for item in batch:
            if isinstance(item, UserUpdate):
                events = zip(item.new, item.order, strict=True)
                new = [(item.titles[i], item.times[i], item.actions[i], number) for i, number in events]
                self.by_user.setdefault(item.user, []).extend(new)

    def histories(self, stream_state: StreamState) -> Iterator[tuple[History, NDArray[np.int64]]]:
        """Each user's history with catalog rows, and the numbers of its events."""
        for user, events in self.by_user.items():
            titles, times, actions, numbers = zip(*events, strict=True)
            columns = (np.array(values, np.int64) for values in (times, actions))
            yield History(user, stream_state.catalog.rows_of(titles), *columns), np.array(numbers, np.int64)


def training_windows(history: History, targets: Sequence[int], limit: int) -> Iterator[TrainingWindow]:
    """Windows that hold each target event exactly once, with up to half a window of earlier events before it. A window
    that does not start at the first event of the history has one event more, which marks it as cut."""
    rest = [event for event in targets if TARGET_WEIGHTS[history.actions_L[event]] > 0]
    while rest:
        part = [event for event in rest if event < rest[0] + limit // 2]
        stop = part[-1] + 1
        start = max(stop - limit - 1, 0)
        columns = (value[start:stop] for value in (history.rows_L, history.times_L, history.actions_L))
        yield History(history.user, *columns), [event - start for event in part]
        rest = rest[len(part) :]


def fit_ranker(ranker: Ranker, source: Ranker, passes: int, cost: FlopEstimator) -> None:
    """Train for `passes` passes over the examples that another ranker kept while it served."""
    ranker.signals_NCF, ranker.log_correction_NC = source.signals_NCF, source.log_correction_NC
    ranker.examples_written = source.examples_written
    held, rng = min(ranker.examples_written, ranker.settings.buffer_examples), np.random.default_rng(ranker.steps)
    for _ in range(passes):
        order = rng.permutation(held)
        for start in range(0, held, ranker.settings.batch_examples):
            cost.run(lambda part=order[start : start + ranker.settings.batch_examples]: ranker.step(part))  # type: ignore[misc]


def train_network(
    settings: LearnerSettings,
    stream_state: StreamState,
    windows: Sequence[TrainingWindow],
    epochs: int,
    cost: FlopEstimator,
) -> SequenceModel:
    """A new network, trained on these windows for some epochs."""
    model = SequenceModel(replace(settings.sequence, steps=1), settings.seed)
    trainer = RankingPipeline(Ranker(settings.ranker), model)  # its ranker has no examples and does not learn
    snapshot, rng = take_snapshot(stream_state), np.random.default_rng(settings.seed)
    for _ in range(epochs):
        order = rng.permutation(len(windows))
        for start in range(0, len(order), WINDOWS_PER_STEP):
            histories, events = zip(*(windows[k] for k in order[start : start + WINDOWS_PER_STEP]), strict=True)
            cost.run(lambda histories=histories, events=events: trainer.learn(snapshot, histories, events, 0.0))  # type: ignore[misc]
    return model


def backbone_mrr(
    model: SequenceModel, stream_state: StreamState, windows: Sequence[TrainingWindow], repeats: bool
) -> float:
    """MRR of the backbone-only order over the target events of these windows."""
    model.refresh(stream_state.catalog)
    candidate_V = stream_state.catalog.candidate_V
    reciprocal_ranks: list[float] = []
    for history, events in windows:
        hidden_ND = model.hidden_before_events([history], np.zeros(len(events), np.int64), np.array(events))
        for score_V, event in zip(model.scores(hidden_ND, 0), events, strict=True):
            score_V[~candidate_V] = -np.inf
            target, earlier = history.rows_L[event], history.rows_L[:event]
            if target >= 0 and (repeats or target not in earlier):
                score_V[earlier[earlier >= 0] if not repeats else []] = -np.inf
                reciprocal_ranks.append(1 / average_rank(score_V, int(target)))
    return float(np.mean(reciprocal_ranks)) if reciprocal_ranks else 0.0


def new_batch_ranker(settings: RankerSettings, seed: int) -> Ranker:
    """An untrained ranker with a buffer for MAX_EXAMPLES examples."""
    return Ranker(replace(settings, buffer_examples=MAX_EXAMPLES), seed)
