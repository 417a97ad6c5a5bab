"""The largest activity record that `features` can write."""

from typing import Final

from pydantic.fields import FieldInfo

from infra.settings import Settings
from streaming.records import MAX_ID_BYTES, Activity, to_msgpack
from streaming.state.user_history import UserEvent
from streaming.state.user_state import UserState

LATE_MS: Final = 1_700_000_000_000


def max_activity_history() -> int:
    field: FieldInfo = Settings.model_fields["activity_history"]
    (limit,) = (found.le for found in field.metadata if hasattr(found, "le"))
    return int(limit)


def largest_activity(size: int) -> Activity:
    """A full history of the longest ids, with the most new events that are older than all of it."""
    state, number = UserState(size), 0
    user = "u" * MAX_ID_BYTES
    largest: list[Activity] = []
    for first in (LATE_MS, LATE_MS - size):
        events = []
        for _ in range(size):
            title = f"{number:06d}".ljust(MAX_ID_BYTES, "x")
            events.append(UserEvent(user, title, first + number % size, 3, None, 4095, 2**62 - 1 - number, LATE_MS))
            number += 1
        largest += [record for record in state.apply(events).records if isinstance(record, Activity)]
    return max(largest, key=lambda record: len(to_msgpack(record)))
