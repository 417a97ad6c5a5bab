"""`premiere up`: runs the services and all flows until Ctrl-C."""

import signal
import time
from typing import Final

import typer

from infra.doctor.command import refuse_folder, refuse_start
from infra.local.embedded import check_services
from infra.local.services import REDIS_URL_FILE, start_services
from infra.local.supervisor import FLOWS, RestartPolicy, Supervisor
from infra.local.terminal import on_hangup
from infra.monitor.liveness import LivenessProbe
from infra.monitor.metrics_server import metrics_port
from infra.settings import Settings
from infra.settings_table import masked_values

RESTART_POLICY: Final = RestartPolicy(max_restarts=None, max_delay_s=60)  # a crashing flow must not stop the others
CHECK_INTERVAL_S: Final = 0.25  # between two checks for crashed flows


def up(settings: Settings, kafka_port: int = 0, redis_port: int = 0) -> None:
    """Run until a signal, then stop all. Raises PremiereError if a service does not start or a flow refuses to."""
    refuse_folder(settings.data_dir)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    on_hangup(signal.default_int_handler)
    try:
        with start_services(settings, kafka_port, redis_port) as ready:
            refuse_start(ready, FLOWS)
            probe = LivenessProbe(ready)
            with Supervisor(ready, restart_policy=RESTART_POLICY, report=_report, is_hung=probe.is_hung) as flows:
                _print_addresses(ready, has_own_redis=not settings.redis_url)
                while True:
                    flows.check()
                    check_services()
                    time.sleep(CHECK_INTERVAL_S)
    except KeyboardInterrupt:
        typer.echo("Stopped.")


def _report(line: str) -> None:
    typer.echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)


def _print_addresses(settings: Settings, has_own_redis: bool) -> None:
    visible = masked_values(settings)
    typer.echo(f"Kafka    {visible['bootstrap_servers']}")
    own_redis = f"URL with password in {settings.data_dir / REDIS_URL_FILE}"
    typer.echo(f"Redis    {own_redis if has_own_redis else visible['redis_url']}")
    for flow in Supervisor(settings).flows:
        port = metrics_port(settings, flow)
        metrics = f"metrics http://{settings.metrics_host}:{port}/metrics  " if port else ""
        workers = f"{count} workers  " if (count := settings.worker_count(flow)) > 1 else ""
        typer.echo(f"{flow:<8} {metrics}{workers}log {settings.data_dir / 'logs' / flow}.log")
    typer.echo("Ctrl-C stops everything.")
