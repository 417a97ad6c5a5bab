"""What `titles` keeps of one title, and the rules by which launches and withdrawals change it.

- The order of `title-launches` decides: a later launch wins whatever its `ts`. Each launch replaces the title's content
  completely; omitted fields are cleared. An unchanged title is not passed on, so a producer may send its whole catalog
  daily.
- A title is withdrawn if its last launch was not appended after its last withdrawal. So a launch that was appended
  later restores the title, and it makes no difference which of the two topics is read first. A withdrawn title keeps
  its content, because histories contain it.
- `launched` is the time of the title's first launch (its `ts`, else its append time) and never changes.
- `stamp` orders the records of a title and is its event time in the feature store: the record's append time in
  microseconds, at least one more than the title's previous stamp. It never depends on the producer's `ts`, so a later
  record also wins after the recovery store was lost. It is after 1970: Feast's Redis store compares no earlier times.
"""

from typing import Any, Final, NamedTuple

from prometheus_client import Counter

from streaming.errors import StreamError

STATE_FORMAT: Final = 3
NEVER: Final = -(2**62)  # append time of no launch, or before any withdrawal, ms

LAUNCHES: Final = Counter("premiere_launches_total", "Launches by outcome: new, changed or same.", ["outcome"])
WITHDRAWALS: Final = Counter("premiere_title_withdrawals_total", "Withdrawals of titles.")


class TitleContent(NamedTuple):
    """The content of a launch."""

    name: str = ""
    genres: tuple[str, ...] = ()
    year: int | None = None
    released: int | None = None  # ms
    text: str = ""  # to embed
    vector: bytes = b""  # the launch's own one, of unit length, float32 little-endian
    space: str = ""  # of this vector


class TitleLaunch(NamedTuple):
    """A valid launch and its position."""

    title: str
    content: TitleContent
    ts: int  # ms
    appended: int  # ms
    offset: int


class Withdrawal(NamedTuple):
    """A valid withdrawal and its position."""

    title: str
    appended: int  # ms
    offset: int


class TitleChange(NamedTuple):
    """The state of a title after a record that changed it."""

    title: str
    content: TitleContent
    launched: int  # ms
    stamp: int  # us
    withdrawn: bool
    appended: int  # of the record, as the offset
    offset: int


class TitleState(NamedTuple):
    """The state of a title, stored as a plain tuple."""

    format: int
    title: str
    stamp: int  # of the last change
    launched: int | None  # None before the first launch
    launch_appended: int  # of the last launch
    withdrawn_at: int  # append time of the last withdrawal
    content: tuple[Any, ...]  # TitleContent

    @property
    def withdrawn(self) -> bool:
        """Whether the title must not be recommended."""
        return self.launch_appended <= self.withdrawn_at

    def ends_at(self, lifetime_ms: int) -> int:
        """When the state can be dropped, if no more records arrive, ms."""
        return max(self.launch_appended, self.withdrawn_at) + lifetime_ms


UNKNOWN: Final = TitleState(STATE_FORMAT, "", 0, None, NEVER, NEVER, tuple(TitleContent()))


def check_format(saved: tuple[Any, ...]) -> TitleState:
    """The state of a snapshot. Raises StreamError on an unknown format."""
    if saved[0] != STATE_FORMAT:
        raise StreamError(
            f"Another version wrote this title's state (format {saved[0]}): run that version, or remove the flow's "
            "recovery folder to process the topics again."
        )
    state = TitleState(*saved)
    return state._replace(content=tuple(TitleContent(*state.content)))  # an earlier release kept fewer fields


def apply(state: TitleState | None, item: TitleLaunch | Withdrawal) -> tuple[TitleState, TitleChange | None]:
    """The state of a title after a record, and the change; None if the record changed nothing."""
    before = UNKNOWN._replace(title=item.title) if state is None else state
    if isinstance(item, Withdrawal):
        WITHDRAWALS.inc()
        after = before._replace(withdrawn_at=max(before.withdrawn_at, item.appended))
    else:
        launched = item.ts if before.launched is None else before.launched
        after = before._replace(launched=launched, launch_appended=item.appended, content=tuple(item.content))
    is_same = state is not None and (before.content, before.withdrawn) == (after.content, after.withdrawn)
    if isinstance(item, TitleLaunch):
        LAUNCHES.labels("new" if before.launched is None else "same" if is_same else "changed").inc()
    if is_same:
        return after, None
    after = after._replace(stamp=max(item.appended * 1000, before.stamp + 1))
    content, launched = TitleContent(*after.content), item.appended if after.launched is None else after.launched
    position = item.appended, item.offset
    return after, TitleChange(item.title, content, launched, after.stamp, after.withdrawn, *position)


def last_change(state: TitleState) -> TitleChange:
    """The change that led to this state. Its position is not kept; the append time is that of the newest record."""
    appended = max(state.launch_appended, state.withdrawn_at)
    launched = appended if state.launched is None else state.launched
    content = TitleContent(*state.content)
    return TitleChange(state.title, content, launched, state.stamp, state.withdrawn, appended, offset=-1)
