"""Which process owns a worker of a flow, over all machines: a lease with a fencing number, in the topic `owners`.

A process claims its worker at its start with a number that is higher than all before, and renews the claim while it
runs. It may write only while its last renewal is recent: `check` is called before each write. Another process takes
over after a release, or when the owner has been silent for `lease_s`. By then the earlier owner has stopped writing,
because its own lease ended first, by its own clock, even if it was stopped (SIGSTOP) and woke up. It then renews its
claim before it writes, finds the newer one, and ends.

The topic's order decides. A renewal is confirmed once its writer has read the topic up to it, so it has seen every
claim before it. Numbers are milliseconds of the claim's time, or the highest number so far plus one, so that they also
increase if the topic is recreated. Readers and stores refuse an older number: a version in `model-versions`, a write to
Redis.

Processes with the same data folder take over from each other at once: the lock of the folder shows that the earlier
process has ended. They have the same `instance`.
"""

import logging
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

from msgspec import structs

from streaming.errors import OwnedElsewhereError, OwnershipError, StreamError
from streaming.kafka.claim_log import EXCHANGE_TIMEOUT_S, ClaimLog
from streaming.kafka.client import topic_partitions
from streaming.records import OwnerClaim
from streaming.topics import OWNERS

RENEWALS_PER_LEASE: Final = 5
RELEASE_TIMEOUT_S: Final = 1.0  # for the broker to accept a release, while the flow ends
STOP_GRACE_S: Final = 3.0  # how long a flow that is asked to stop waits for its claim to be confirmed

log: Final = logging.getLogger(__name__)


class Owner(Protocol):
    """What a writer needs: the fencing number, and a check before each write."""

    @property
    def worker(self) -> int:
        """The index of the worker."""

    @property
    def number(self) -> int:
        """The fencing number; 0: none."""

    def check(self) -> None:
        """Return if this process may write now. Raises OwnershipError if another one has taken over."""


class _SoleProcess:
    """The owner where nothing else can run: in tests and commands."""

    worker = number = 0

    def check(self) -> None:
        """Nothing can have taken over."""


SOLE_PROCESS: Final[Owner] = _SoleProcess()


class Ownership:
    """The claim of one process on one worker of a flow. A thread renews it."""

    def __init__(
        self,
        config: Mapping[str, Any],
        claim: OwnerClaim,
        stop: threading.Event,
        lease_s: float = 15.0,
    ) -> None:
        """`claim` names the worker and this process; its number is a lower bound. `stop` is set after a takeover."""
        self.config, self.claim, self.stop, self.lease_s = config, claim, stop, lease_s
        self.successor: OwnerClaim | None = None
        self._newest: dict[bytes, OwnerClaim] = {}  # by worker; those that this process would replace
        self._renewed_at = float("-inf")  # monotonic seconds
        self._confirmed, self._ended = threading.Condition(), threading.Event()
        self._claims = ClaimLog(config)

    @property
    def worker(self) -> int:
        """The index of the worker."""
        return self.claim.worker

    @property
    def number(self) -> int:
        """The fencing number."""
        return self.claim.number

    def acquire(self) -> None:
        """Claim the worker, and renew the claim from now on.

        Waits for the lease of an owner that was not released. Raises OwnershipError if that owner is alive.
        """
        topic_partitions(self.config, OWNERS)  # raises the error for a missing topic or an unavailable broker
        self._exchange(None)
        if any(not one.released and one.instance != self.claim.instance for one in self._newest.values()):
            self._wait_for_lease()
        while True:
            lower = max((one.number + 1 for one in self._newest.values()), default=0)
            self.claim = structs.replace(self.claim, number=max(lower, self.claim.number, round(time.time() * 1000)))
            sent_at = time.monotonic()
            self._exchange(self.claim)
            if all(one.number < self.claim.number for one in self._newest.values()):
                break
        self._renewed_at = sent_at
        threading.Thread(target=self._renew_until_ended, name="ownership", daemon=True).start()

    def check(self) -> None:
        """Return if this process may write now; wait until the claim is confirmed if the last renewal is too old.

        Raises OwnershipError if another process has taken over, or if `stop` is set and the claim is not confirmed.
        """
        since, waits = time.monotonic(), False
        with self._confirmed:
            while not self._is_valid():
                if self.successor is not None:
                    raise _taken_over(self.successor)
                if self.stop.is_set() and time.monotonic() - since > STOP_GRACE_S:
                    raise OwnershipError("Kafka does not confirm that this process still owns the flow.")
                if not waits:
                    log.warning("Waiting for Kafka to confirm the claim on %s.", self.claim.key.decode())
                waits = True
                self._confirmed.wait(0.1)
        if waits:
            waited_s = time.monotonic() - since
            log.warning("Kafka confirms the claim on %s after %.0f s.", self.claim.key.decode(), waited_s)

    def release(self) -> None:
        """End the claim, so that another process can take over at once."""
        self._ended.set()
        self._renewed_at = float("-inf")
        if self.successor is None:
            try:
                self._claims.write(structs.replace(self.claim, released=True), RELEASE_TIMEOUT_S)
            except StreamError as error:
                log.warning("The ownership of %s was not released (%s).", self.claim.key.decode(), error)

    def _is_valid(self) -> bool:
        return self.successor is None and time.monotonic() - self._renewed_at < self.lease_s / 2

    def _wait_for_lease(self) -> None:
        """Raises OwnershipError if the owner renews its claim meanwhile."""
        before = dict(self._newest)
        log.warning("Waiting %g s for the end of the lease of %s.", self.lease_s, _names(before))
        if self.stop.wait(self.lease_s):
            raise OwnershipError("The flow was asked to stop before it owned its worker.")
        self._exchange(None)
        alive = {key: one for key, one in self._newest.items() if one != before.get(key) and not one.released}
        if alive:
            raise OwnedElsewhereError(f"It is running elsewhere, as {_names(alive)}: stop it there first.")

    def _renew_until_ended(self) -> None:
        while not self._ended.wait(self.lease_s / RENEWALS_PER_LEASE):
            sent_at, renewed = time.monotonic(), structs.replace(self.claim, renewal=self.claim.renewal + 1)
            try:
                self._exchange(renewed)
            except StreamError as error:
                log.info("The claim on %s could not be renewed (%s).", self.claim.key.decode(), error)
                replaced, self._claims = self._claims, ClaimLog(self.config, self._claims.offset)
                replaced.discard()  # a client that lived through an outage may be stale, or hang
                continue
            newer = [one for one in self._newest.values() if one.number > self.claim.number]
            with self._confirmed:
                if newer:
                    self.successor = max(newer, key=lambda one: one.number)
                else:
                    self.claim, self._renewed_at = renewed, sent_at
                self._confirmed.notify_all()
            if newer:
                self.stop.set()
                return

    def _exchange(self, claim: OwnerClaim | None) -> None:
        """Write a claim, or nothing but a mark, and read all claims before it. Raises OwnershipError."""
        for found in self._claims.exchange(claim, EXCHANGE_TIMEOUT_S):
            if found.process != self.claim.process and found.replaces(self.claim):
                newest = self._newest.get(found.key)
                if newest is None or found.number >= newest.number:
                    self._newest[found.key] = found


def new_claim(flow: str, worker: int, workers: int, instance: str, minimum: int = 0) -> OwnerClaim:
    """The claim of this process, before it has a number; it will be at least `minimum`."""
    process, host = secrets.token_hex(8), socket.gethostname()
    return OwnerClaim(
        flow=flow, worker=worker, workers=workers, instance=instance, process=process, host=host, number=minimum
    )


def _taken_over(successor: OwnerClaim) -> OwnedElsewhereError:
    return OwnedElsewhereError(f"Another process has taken over: {_names({successor.key: successor})}.")


def _names(claims: Mapping[bytes, OwnerClaim]) -> str:
    return ", ".join(f"{key.decode()} on {one.host} (owner {one.number})" for key, one in claims.items())
