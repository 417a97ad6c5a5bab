"""Health check of a flow's container: exits with 0 if the flow's metrics show that it makes steps, else with 1.

An open port is not enough: a flow serves metrics before it connects to Kafka, and also while a step hangs. The limit is
above the five minutes for which a flow waits for Redis. The script uses only the standard library, since it runs every
few seconds.
"""

import re
import sys
import time
from urllib.request import urlopen

HEARTBEAT = re.compile(r"^premiere_heartbeat_timestamp_seconds (\S+)$", re.M)
MAX_AGE_S = 360.0
TIMEOUT_S = 4.0


def healthy(port: int) -> bool:
    """Whether the flow that serves metrics on this port has made a step lately."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_S) as response:
            heartbeat = HEARTBEAT.search(response.read().decode())
    except OSError:
        return False
    return heartbeat is not None and time.time() - float(heartbeat[1]) < MAX_AGE_S


if __name__ == "__main__":
    sys.exit(0 if healthy(int(sys.argv[1])) else 1)
