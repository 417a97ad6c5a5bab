"""`premiere up` shows the addresses and runs until a signal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.address_file import ADDRESS_FILE
from infra.local.supervisor import FLOWS
from infra.settings import Settings


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_up_runs_until_a_signal(redis_url: str, tmp_path: Path, number: signal.Signals) -> None:
    settings = Settings(data_dir=tmp_path, bootstrap_servers="", redis_url=redis_url, metrics_port=0)
    command = [sys.executable, "-P", "-m", "infra.cli.main", "up", "--broker", "embedded"]
    outer = {name: value for name, value in os.environ.items() if name != "KAFKA_BOOTSTRAP_SERVERS"}
    env = {**outer, **settings.environment(), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(2 + len(FLOWS) + 1)]
        assert (tmp_path / ADDRESS_FILE).exists(), lines
        child.send_signal(number)
        rest = child.stdout.read()
    assert [line.split()[0] for line in lines] == ["Kafka", "Redis", *FLOWS, "Ctrl-C"]
    assert lines[1].split()[1] == redis_url
    assert lines[2].split()[1:] == ["log", str(tmp_path / "logs" / "features.log")]
    assert (child.returncode, rest) == (0, "Stopped.\n")
    assert not (tmp_path / ADDRESS_FILE).exists()
