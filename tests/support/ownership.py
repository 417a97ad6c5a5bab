"""An owner of a worker whose number and takeover a test sets."""

from streaming.errors import OwnedElsewhereError


class FixedOwner:
    """Owns a worker with a fixed number until `replaced` is set."""

    worker = 0

    def __init__(self, number: int) -> None:
        self.number, self.replaced = number, False

    def check(self) -> None:
        if self.replaced:
            raise OwnedElsewhereError("Another process has taken over.")
