"""Health check of a flow's container: exits with 0 if the flow's probe answers with success, else with 1.

An open port is not enough: a flow serves metrics before it connects to Kafka, and also while a step hangs. The script
uses only the standard library, since it runs every few seconds.

    healthy.py PORT [startupz|livez|readyz]
"""

import sys
from urllib.request import ProxyHandler, build_opener

TIMEOUT_S = 4.0


def healthy(port: int, probe: str = "startupz") -> bool:
    """Whether the probe of the flow that serves metrics on this port succeeds. A proxy would not reach loopback."""
    try:
        with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/{probe}", timeout=TIMEOUT_S) as response:
            return bool(response.status == 200)
    except OSError:  # also an answer that is no success
        return False


if __name__ == "__main__":
    sys.exit(0 if healthy(int(sys.argv[1]), *sys.argv[2:3]) else 1)
