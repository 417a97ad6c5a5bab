"""What the tests of the whole running loop share: sending into it, and waiting for it."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

import pytest

from infra.data.producer import Delivery
from infra.local.processes import tail
from infra.local.session import Session
from infra.local.supervisor import FLOWS

PATIENCE: Final = 90.0  # seconds for anything to happen: a busy machine starts four processes that import torch

T = TypeVar("T")


def within(loop: Session, what: str, ask: Callable[[], T | None]) -> T:
    """The first answer that is something, asked again and again for as long as our patience lasts."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        loop.flows.check()
        if answer := ask():
            return answer
        time.sleep(0.1)
    ends = "\n".join(f"[{flow}]\n{tail(loop.settings.data_dir / 'logs' / f'{flow}.log')}" for flow in FLOWS)
    pytest.fail(f"not within {PATIENCE:g} s: {what}; the flows' logs end with\n{ends}")


def send(loop: Session, *records: tuple[str, str, bytes]) -> None:
    """Topic, key, value of each, delivered."""
    delivery = Delivery(loop.settings.kafka())
    for topic, name, value in records:
        delivery.send(topic, name, value)
    delivery.flush()
    delivery.close()
