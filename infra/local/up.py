"""`premiere up`: the embedded stack and all flows until Ctrl-C."""

import signal
import time
from typing import Final

import typer

from infra.local.services import services
from infra.local.supervisor import Supervisor
from infra.monitor.metrics_server import port
from infra.settings import Settings, shown

STEP: Final = 0.25  # seconds between two looks at the flows


def up(settings: Settings) -> None:
    """Run until Ctrl-C or SIGTERM, then stop all. Raises PremiereError where something cannot start or live."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with services(settings) as ready, Supervisor(ready) as flows:
            _greet(ready)
            while True:
                flows.check()
                time.sleep(STEP)
    except KeyboardInterrupt:
        typer.echo("Stopped.")


def _greet(settings: Settings) -> None:
    visible = shown(settings)
    typer.echo(f"Kafka    {visible['bootstrap_servers']}")
    typer.echo(f"Redis    {visible['redis_url']}")
    for flow in Supervisor(settings).flows:
        metrics = (
            f"metrics http://{settings.metrics_host}:{port(settings, flow)}/metrics  " if port(settings, flow) else ""
        )
        workers = f"{count} workers  " if (count := settings.workers(flow)) > 1 else ""
        typer.echo(f"{flow:<8} {metrics}{workers}log {settings.data_dir / 'logs' / flow}.log")
    typer.echo("Ctrl-C stops everything.")
