"""Free metrics ports for tests."""

from infra.monitor.metrics_server import reserved_base_port
from infra.settings import Settings


def free_base_port(settings: Settings) -> int:
    """A base port whose block is free now."""
    with reserved_base_port(settings) as base:
        return base
