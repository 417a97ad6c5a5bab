"""What a retraining is made of: all histories so far as windows, a new network over them, a new ranker over records,
and the operations that they cost."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from infra.experiments.harness import Batch
from model.actions import WEIGHTS
from model.learner import LearnerSettings, UserUpdate
from model.metrics.ranking import average_rank
from model.pipeline import RankingPipeline
from model.sequence.flops import counting
from model.sequence.model import SequenceModel
from model.signals import candidates
from model.signals.ranker import Ranker, RankerSettings
from model.state.stream_state import History, StreamState

WINDOWS: Final = 8  # a step of the retrained network
COUNTED: Final = 20  # steps of which one's operations are counted
RECORDS: Final = 32_768  # that the retrained ranker learns from, at most: the newest
T = TypeVar("T")

Piece = tuple[History, list[int]]  # a window and the events of it that are learned


class Cost:
    """Operations of many steps, from those of one in COUNTED."""

    def __init__(self) -> None:
        self.steps = self.counted = 0
        self.flops = 0.0

    def of(self, step: Callable[[], T]) -> T:
        """Take the step; count it where its turn has come."""
        self.steps += 1
        if (self.steps - 1) % COUNTED:
            return step()
        with counting() as counter:
            done = step()
        self.counted += 1
        self.flops += float(counter.get_total_flops())
        return done

    def total(self) -> float:
        """Of all steps."""
        return self.flops / max(self.counted, 1) * self.steps


class Histories:
    """All that users did so far, with the number of each event in the stream."""

    def __init__(self) -> None:
        self.of: dict[str, list[tuple[str, int, int, int]]] = {}  # title, ms, action, number

    def add(self, batch: Batch) -> None:
        """Take in the new events of a micro-batch."""
        for item in batch:
            if isinstance(item, UserUpdate):
                events = zip(item.new, item.order, strict=True)
                new = [(item.titles[i], item.times[i], item.actions[i], number) for i, number in events]
                self.of.setdefault(item.user, []).extend(new)

    def histories(self, stream_state: StreamState) -> Iterator[tuple[History, NDArray[np.int64]]]:
        """Each user's history as rows, and the events' numbers."""
        for user, events in self.of.items():
            titles, times, actions, numbers = zip(*events, strict=True)
            columns = (np.array(values, np.int64) for values in (times, actions))
            yield History(user, stream_state.catalog.find(titles), *columns), np.array(numbers, np.int64)


def pieces(history: History, learned: Sequence[int], limit: int) -> Iterator[Piece]:
    """Windows that hold these events once each, every one with half a window before it; where a window is cut out of
    something longer, it has one event more, which says so."""
    rest = [event for event in learned if WEIGHTS[history.actions_L[event]] > 0]
    while rest:
        part = [event for event in rest if event < rest[0] + limit // 2]
        stop = part[-1] + 1
        start = max(stop - limit - 1, 0)
        columns = (value[start:stop] for value in (history.rows_L, history.times_L, history.actions_L))
        yield History(history.user, *columns), [event - start for event in part]
        rest = rest[len(part) :]


class Refit(Ranker):
    """A ranker that learns from all of its records at once."""

    def fit(self, records: Ranker, passes: int, cost: Cost) -> None:
        """So many passes over what another one noted while it served."""
        self.signals_NKF, self.log_share_NK, self.written = records.signals_NKF, records.log_share_NK, records.written
        held, rng = min(self.written, self.settings.buffer), np.random.default_rng(self.steps)
        for _ in range(passes):
            order = rng.permutation(held)
            for start in range(0, held, self.settings.batch):
                cost.of(lambda part=order[start : start + self.settings.batch]: self._step(part))  # type: ignore[misc]


def fitted(
    settings: LearnerSettings, stream_state: StreamState, windows: Sequence[Piece], epochs: int, cost: Cost
) -> SequenceModel:
    """A new network, trained on these windows."""
    model = SequenceModel(replace(settings.sequence, steps=1), settings.seed)
    trainer = RankingPipeline(Ranker(settings.ranker), model)  # its ranker has no records, and learns nothing
    snapshot, rng = candidates.view(stream_state), np.random.default_rng(settings.seed)
    for _ in range(epochs):
        order = rng.permutation(len(windows))
        for start in range(0, len(order), WINDOWS):
            histories, events = zip(*(windows[k] for k in order[start : start + WINDOWS]), strict=True)
            cost.of(lambda histories=histories, events=events: trainer.learn(snapshot, histories, events, 0.0))  # type: ignore[misc]
    return model


def asked_alone(model: SequenceModel, stream_state: StreamState, requests: Sequence[Piece], repeats: bool) -> float:
    """MRR of the network's own order over these events of these histories."""
    model.refresh(stream_state.catalog)
    candidate_V = stream_state.titles().candidate_V
    found: list[float] = []
    for history, events in requests:
        hidden_ND = model.before_events([history], np.zeros(len(events), np.int64), np.array(events))
        for score_V, event in zip(model.scores(hidden_ND, 0), events, strict=True):
            score_V[~candidate_V] = -np.inf
            target, before = history.rows_L[event], history.rows_L[:event]
            if target >= 0 and (repeats or target not in before):
                score_V[before[before >= 0] if not repeats else []] = -np.inf
                found.append(1 / average_rank(score_V, int(target)))
    return float(np.mean(found)) if found else 0.0


def refit(settings: RankerSettings, seed: int) -> Refit:
    """An unlearned ranker with room for many records."""
    return Refit(replace(settings, buffer=RECORDS), seed)
