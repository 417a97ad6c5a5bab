"""Shared by the tests of the whole running system: sending records and waiting for effects."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

import pytest

from infra.data.producer import Delivery
from infra.local.processes import log_tail
from infra.local.session import Session
from infra.local.supervisor import FLOWS

TIMEOUT_S: Final = 90.0  # for any effect: a busy machine starts four processes that import torch

T = TypeVar("T")


def wait_for(session: Session, description: str, condition: Callable[[], T | None]) -> T:
    """Poll `condition` and return its first truthy result; fail after `TIMEOUT_S`."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        session.flows.check()
        if result := condition():
            return result
        time.sleep(0.1)
    folder = session.settings.data_dir / "logs"
    ends = "\n".join(f"[{flow}]\n{log_tail(folder / f'{flow}.log')}" for flow in FLOWS)
    pytest.fail(f"not within {TIMEOUT_S:g} s: {description}. Ends of the flows' logs:\n{ends}")


def send_records(session: Session, *records: tuple[str, str, bytes]) -> None:
    """Send records (topic, key, value) and wait for their delivery."""
    delivery = Delivery(session.settings.kafka_config())
    for topic, name, value in records:
        delivery.send(topic, name, value)
    delivery.flush()
    delivery.close()
