"""Convert an activity record into the model's update of a user."""

from collections.abc import Iterable

from model.state.stream_state import UserUpdate
from streaming.records import Activity, NewEvent


def user_update(activity: Activity, new: Iterable[NewEvent]) -> UserUpdate:
    """The user's history with these of its new events, in the order of the history."""
    ordered = sorted(new, key=lambda event: event.index)
    indices, recorded = [event.index for event in ordered], [event.appended for event in ordered]
    order = [activity.times[index] for index in indices]
    return UserUpdate(activity.user, activity.titles, activity.times, activity.actions, indices, order, recorded)
