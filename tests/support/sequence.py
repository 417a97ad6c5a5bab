"""A catalog, histories and training batches, for tests of the sequence model."""

import numpy as np

from model.sequence.model import SequenceModel
from model.sequence.objective import StepReport
from model.state.catalog import NOT_LAUNCHED, Catalog
from model.state.stream_state import History
from tests.support.learner import D_TEXT, NETWORK, PLAY, random_unit_vectors

TITLES, LIMIT = 12, NETWORK.max_history


def catalog(titles: int = TITLES) -> Catalog:
    """A catalog of launched titles with five events each."""
    made = Catalog(D_TEXT, 8)
    for n, text in enumerate(random_unit_vectors(np.random.default_rng(1), titles)):
        made.launch(made.ensure_row(f"t{n}", n + 1), text, [], None, None, n + 1)
    made.count_V[:titles] = 5
    return made


def history(rows: list[int], user: str = "u") -> History:
    """A history with one event per minute."""
    n = len(rows)
    return History(user, np.array(rows, np.int64), np.arange(n, dtype=np.int64) * 60_000, np.full(n, PLAY, np.int64))


def learn_last_events(
    model: SequenceModel, histories: list[History], titles: Catalog, replay_share: float = 1.0, keep: bool = True
) -> StepReport | None:
    """Train on the last event of each history; `keep` also stores the histories in the replay buffer."""
    n = len(titles)
    launched = np.flatnonzero(titles.launch_sequence_V[:n] < NOT_LAUNCHED)
    new = [[len(history.rows_L) - 1] for history in histories]
    report = model.learn(histories, new, titles, titles.count_V[:n].copy(), launched, titles.count_V[:n], replay_share)
    if keep:
        for history in histories:
            model.add_to_replay(history, len(history.rows_L))
    return report


def train_random_batches(model: SequenceModel, titles: Catalog, steps: int, seed: int = 2) -> list[float]:
    """Train on random histories and evict a title now and then; return the losses."""
    random, losses = np.random.default_rng(seed), []
    for step in range(steps):
        histories = [history(random.integers(0, TITLES, random.integers(1, 16)).tolist(), f"u{u}") for u in range(4)]
        model.refresh(titles)
        report = learn_last_events(model, histories, titles)
        assert report is not None
        losses.append(report.loss)
        if step % 5 == 4:
            model.evict_titles(np.array([step % TITLES]))
    return losses
