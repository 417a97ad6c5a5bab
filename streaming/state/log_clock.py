"""The time of the learner log: record times without the jumps of the hosts that set them.

Producers set the record times of `activity`, so they jump when a host's clock is corrected, and the hosts of `features`
and `titles` may differ. Log time never decreases. It follows the record times of each flow, and a jump of more than
`MAX_STEP_MS` in either direction shifts the flow's times from then on.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec import structs

from streaming.records import Activity, LogRecord, TextSpace, Title

MAX_STEP_MS: Final = 10_000  # a larger step forward counts as this; log time never goes back


class LogClock(NamedTuple):
    """Log time after a record, a function of the records so far. The first record is at time 0."""

    now: int = 0  # ms
    events_shift: int | None = None  # ms from the record times of `features` to log time; None before its first record
    titles_shift: int | None = None  # the same for `titles`

    def after(self, record: LogRecord, appended: int) -> "LogClock":
        """The clock after the log's next record, with record time `appended`."""
        of_title = isinstance(record, Title | TextSpace)
        own, other = (self.titles_shift, self.events_shift) if of_title else (self.events_shift, self.titles_shift)
        shift = other if own is None else own  # before its first record
        step = 0 if shift is None else appended + shift - self.now
        if shift is None or abs(step) > MAX_STEP_MS:
            step = MAX_STEP_MS if step > 0 and own is not None else 0
            shift = self.now + step - appended
        now = self.now + max(step, 0)
        return LogClock(now, self.events_shift, shift) if of_title else LogClock(now, shift, self.titles_shift)

    @classmethod
    def restored(cls, state: Sequence[int | None]) -> "LogClock":
        """The clock of a checkpoint."""
        now, events_shift, titles_shift = state
        return cls(now or 0, events_shift, titles_shift)


def recorded_until(activity: Activity, appended: int) -> Activity:
    """The activity with no record time of an event after its own, `appended`.

    Where a broker keeps the producer's record times, an event can claim any; `features` then sets the only bound.
    """
    if all(event.appended <= appended for event in activity.new):
        return activity
    new = [structs.replace(event, appended=min(event.appended, appended)) for event in activity.new]
    return structs.replace(activity, new=new)
