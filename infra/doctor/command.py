"""`premiere doctor`: checks everything that the flows need, and names the remedy for each finding.

`premiere up` and `premiere run` make the quick checks of it before they start a flow.
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from infra.doctor.findings import Finding
from infra.doctor.host_checks import checkpoint_url_findings, folder_findings, host_findings
from infra.doctor.kafka_checks import kafka_findings, topic_findings
from infra.doctor.redis_checks import redis_findings
from infra.errors import SettingsError
from infra.settings import Settings

START_TIMEOUT_S: Final = 5.0  # for each answer of the broker at the start of a flow


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


def refuse_start(settings: Settings, flows: Collection[str]) -> None:
    """Raise SettingsError for the first error that would keep these flows from working and that does not pass.

    Outages are left to the flows. Ports, the encoder and the access to the learner log are not checked: the flows use
    them at once, and end with the same messages.
    """
    _refuse(_start_findings(settings, flows))


def refuse_folder(folder: Path) -> None:
    """Raise SettingsError if the data folder cannot be written."""
    _refuse(folder_findings(folder))


def _refuse(findings: Iterable[Finding]) -> None:
    for found in findings:
        if found.level == "error" and not found.may_pass:
            raise SettingsError(f"{found.text.rstrip('.')}. {found.remedy}".rstrip())


def _start_findings(settings: Settings, flows: Collection[str]) -> Iterator[Finding]:
    yield from folder_findings(settings.data_dir)
    if settings.bootstrap_servers:
        yield from topic_findings(settings, flows, START_TIMEOUT_S)
    if settings.redis_url and set(flows) != {"learn"}:  # which does not use Redis
        yield from redis_findings(settings, flows)
    if "learn" in flows:
        yield from checkpoint_url_findings(settings.checkpoints_url())
