"""Nothing that a producer sends stops a flow or goes uncounted: the short form of `make fuzz`."""

from collections import Counter
from pathlib import Path

import msgspec

from infra.local.session import running
from streaming.records import decode_event, decode_launch
from streaming.topics import USER_EVENTS
from tests.support.chaos import settings
from tests.tools.fuzz import Sent, fuzz, messages


def readable(sent: Sent) -> bool:
    try:
        (decode_event if sent.topic == USER_EVENTS else decode_launch)(sent.value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def test_the_messages_are_a_mixture_and_follow_from_the_seed() -> None:
    some = list(messages(3000, seed=1))
    assert some == list(messages(3000, seed=1))
    assert some != list(messages(3000, seed=2))
    good = Counter(map(readable, some))
    assert min(good[True], good[False]) > 400
    assert len({sent.value for sent in some}) > 2000


def test_every_message_is_counted_once_and_every_flow_lives(tmp_path: Path) -> None:
    with running(settings(tmp_path)) as loop:
        found = fuzz(loop, 2000, seed=7, say=print)
    assert found["taken"] > 100
    assert min(found["dead letters"].values()) > 50
    assert len(found["reasons"]["features"]) >= 7
