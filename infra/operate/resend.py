"""Resend dead letters to the topics that they came from, for example after a producer or a flow was fixed.

A letter is resent at most once, even if the command is interrupted. Before a batch is sent, a note that lists it is
written to the topic `dead-letters`; a second note follows when the whole batch was delivered. The letters of a batch
with the first note only are uncertain: they are skipped unless `include_uncertain` is set. The offset of a consumer
group would not do: it cannot distinguish reasons, and Kafka deletes it before it deletes the letters.

Each resent record has the header `resent-from`. If it is still invalid, it becomes a new letter. An event that was
appended before its user was erased is not resent, since that would restore erased data. The topic `erasure-requests`
tells which; it is kept longer than the letters.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

from infra.errors import TopicError
from infra.operate.dead_letters import (
    NOTE_DONE,
    NOTE_STARTED,
    RESEND_NOTE,
    DeadLetter,
    ResendState,
    read_erasures,
    read_letters,
    read_notes,
)
from streaming.errors import StreamError
from streaming.kafka.dead_letters import RESENT_FROM_HEADER
from streaming.kafka.sink import KafkaSink, Outgoing
from streaming.topics import DEAD_LETTERS, USER_EVENTS

BATCH_LETTERS: Final = 500  # letters of a note: an interruption leaves at most this number uncertain
WRONG_UNIT: Final = "unit"  # reason type of events whose times are no milliseconds


class ResendResult(NamedTuple):
    """How many letters were resent, and how many were skipped, by reason."""

    sent: int
    skipped: Counter[str]


def resend(
    config: Mapping[str, str],
    end: int,
    reason: str | None = None,
    include_uncertain: bool = False,
    on_progress: Callable[[int], object] = lambda sent: None,
) -> ResendResult:
    """Resend the letters below offset `end`, all of them or those of one reason type.

    `on_progress` gets the number of letters sent so far. Raises TopicError.
    """
    skipped: Counter[str] = Counter()
    excluded = (ResendState.RESENT,) if include_uncertain else (ResendState.UNCERTAIN, ResendState.RESENT)
    letters = _selected(config, end, reason, excluded, skipped)
    sent, writer = 0, KafkaSink(config).build_part("resend", "000", None)

    def deliver(records: Iterable[Outgoing]) -> None:
        writer.write_batch([list(records)])
        writer.snapshot()

    try:
        while batch := list(islice(letters, BATCH_LETTERS)):
            deliver([resend_note(batch, NOTE_STARTED)])
            deliver(_resent_record(letter) for letter in batch)
            deliver([resend_note(batch, NOTE_DONE)])
            sent += len(batch)
            on_progress(sent)
    except StreamError as error:
        raise TopicError(
            f"The resend stopped after {sent} letters: {error} Up to {BATCH_LETTERS} more are uncertain: "
            "`premiere dead-letters` counts them, and only `--again` sends them again."
        ) from error
    finally:
        writer.close()
    return ResendResult(sent, skipped)


def _selected(
    config: Mapping[str, str], end: int, reason: str | None, excluded: Sequence[ResendState], skipped: Counter[str]
) -> Iterator[DeadLetter]:
    """The letters to resend, without duplicates; the others are counted in `skipped`."""
    notes, erasures = read_notes(config), read_erasures(config)
    for message, letter, is_duplicate in read_letters(config):
        if message.offset >= end:
            return
        if letter is None or is_duplicate or reason not in (None, letter.reason_type):
            continue
        state = notes.state(letter)
        if letter.reason_type == WRONG_UNIT:  # most would be refused again, and the others would be learned as of 1970
            skipped["with a wrong unit of time: the producer must send them again"] += 1
        elif state in excluded:
            skipped["already resent" if state is ResendState.RESENT else "uncertain"] += 1
        elif letter.source_topic == USER_EVENTS and erasures.get(letter.key or b"", -1) >= letter.source_appended:
            skipped["of erased users"] += 1
        elif letter.resendable:
            yield letter
        else:
            skipped["truncated" if letter.length else "empty"] += 1


def resend_note(batch: Sequence[DeadLetter], state: bytes) -> Outgoing:
    """The note that the resend of a batch started or is done."""
    offsets = json.dumps([letter.offset for letter in batch])
    return Outgoing(DEAD_LETTERS, None, offsets.encode(), [(RESEND_NOTE, state)])


def _resent_record(letter: DeadLetter) -> Outgoing:
    return Outgoing(letter.source_topic, letter.key, letter.value, [(RESENT_FROM_HEADER, letter.source.encode())])
