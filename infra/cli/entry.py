"""The program `premiere`: a Ctrl-C before the command line is imported ends it without a traceback."""

import signal
import sys


def main() -> None:
    """Import the command line and run it."""
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    from infra.cli.main import app

    signal.signal(signal.SIGINT, signal.default_int_handler)
    app()
