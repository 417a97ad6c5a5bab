"""No message crashes a flow, and each message is counted once: a short version of `make fuzz`."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import pytest

from infra.local.session import run_session
from streaming.records import decode_erasure_request, decode_event, decode_launch, decode_withdrawal
from streaming.topics import ERASURE_REQUESTS, TITLE_LAUNCHES, TITLE_WITHDRAWALS, USER_EVENTS
from tests.support.chaos import session_settings
from tests.tools.fuzz import FuzzMessage, fuzz, fuzz_messages

DECODERS: Final[dict[str, Callable[[bytes], object]]] = {
    USER_EVENTS: decode_event,
    ERASURE_REQUESTS: decode_erasure_request,
    TITLE_LAUNCHES: decode_launch,
    TITLE_WITHDRAWALS: decode_withdrawal,
}


def decodable(sent: FuzzMessage) -> bool:
    try:
        DECODERS[sent.topic](sent.value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def test_fuzz_messages_depend_on_seed() -> None:
    some = list(fuzz_messages(3000, seed=1))
    assert some == list(fuzz_messages(3000, seed=1))
    assert some != list(fuzz_messages(3000, seed=2))
    valid = Counter(map(decodable, some))
    assert min(valid[True], valid[False]) > 400
    assert len({sent.value for sent in some}) > 2000


@pytest.mark.extended
def test_every_fuzz_message_is_counted_once(tmp_path: Path) -> None:
    with run_session(session_settings(tmp_path)) as session:
        found = fuzz(session, 2000, seed=7, log=print)
    assert found["accepted"] > 100
    assert min(found["dead_letters"].values()) > 20
    assert len(found["reasons"]["features"]) >= 7
