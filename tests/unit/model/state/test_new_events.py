"""The new events of an update: which count, in which order, at what time, and how often they were repeated."""

import numpy as np

from model.actions import ACTIONS
from model.settings import StreamStateSettings
from model.state.new_events import NO_RECORD_TIME, admit_events, positive_events
from model.state.stream_state import StreamState, TitleMetadata, UserUpdate

PLAY, IMPRESSION = ACTIONS["play"].code, ACTIONS["impression"].code
HOUR_MS = 3_600_000


def state(*titles: str) -> StreamState:
    """A state with these launched titles."""
    made = StreamState(StreamStateSettings())
    made.launch(TitleMetadata(title, np.zeros(0, np.float32), (), None, None, False) for title in titles)
    return made


def test_events_of_positive_weight_on_titles_with_a_row_are_admitted() -> None:
    titles, actions = ["a", "waits", "b", "b"], [PLAY, PLAY, IMPRESSION, PLAY]
    update = UserUpdate("u", titles, [1, 2, 3, 4], actions, [1, 2, 3], [7, 8, 9], [10, 20, 30])
    assert positive_events(update) == [1, 3]
    made = state("a", "b")
    history, (event,) = admit_events(made, update)
    assert history.rows_L.tolist() == [0, -1, 1, 1]
    assert (event.event_index, event.order, event.row, event.ts, event.recorded) == (3, 9, 1, 4, 30)
    assert event.history.rows_L.tolist() == [0, -1, 1]
    assert made.waiting_title_events == 1


def test_repeats_count_the_events_before_that_were_counted() -> None:
    times = [0, HOUR_MS, 2 * HOUR_MS, 40 * HOUR_MS]
    update = UserUpdate("u", ["a"] * 4, times, [PLAY, IMPRESSION, PLAY, PLAY], [2, 3], [0, 1])
    _, events = admit_events(state("a"), update)
    assert [event.repeat for event in events] == [2, 1]
    assert [event.recorded for event in events] == [NO_RECORD_TIME] * 2
