"""`premiere doctor`: checks everything that the flows need, and names the remedy for each finding."""

from collections.abc import Iterator

from infra.doctor.findings import Finding
from infra.doctor.host_checks import host_findings
from infra.doctor.kafka_checks import kafka_findings
from infra.doctor.redis_checks import redis_findings
from infra.settings import Settings


def diagnose(settings: Settings) -> Iterator[Finding]:
    """All findings. A part without an address is skipped: `premiere up` would start it."""
    yield Finding("ok", "settings", f"valid; data folder {settings.data_dir.resolve()}")
    if settings.bootstrap_servers:
        yield from kafka_findings(settings)
    else:
        yield Finding("warning", "kafka", "no broker is set", "`premiere up` starts one, for one machine only.")
    if settings.redis_url:
        yield from redis_findings(settings)
    else:
        yield Finding("warning", "redis", "no Redis is set", "`premiere up` starts one, for one machine only.")
    yield from host_findings(settings)
