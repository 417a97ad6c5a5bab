"""Health check of a flow's container: exits with 0 if the flow's metrics show that it reads its topics, else with 1.

An open port is not enough: a flow serves metrics before it connects to Kafka. The metric of a read offset appears only
when a source has been built. The script uses only the standard library, since it runs every few seconds.
"""

import sys
from urllib.request import urlopen

READ_OFFSET = "\npremiere_read_offset{"
TIMEOUT_S = 4.0


def healthy(port: int) -> bool:
    """Whether the flow that serves metrics on this port reads a topic."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_S) as response:
            return READ_OFFSET in response.read().decode()
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(0 if healthy(int(sys.argv[1])) else 1)
