"""Is this container's flow well? Exit 0 where it says on its metrics page that it reads its topics, 1 where not.

An open port would not tell: metrics are served before the flow has found Kafka, and no metric of a topic is there until
its source was built. Standard library only, for it runs every few seconds.
"""

import sys
from urllib.request import urlopen

READS = "\npremiere_read_offset{"
TIMEOUT = 4.0  # seconds


def healthy(port: int) -> bool:
    """Whether the flow behind this port reads a topic."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT) as page:
            return READS in page.read().decode()
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(0 if healthy(int(sys.argv[1])) else 1)
