"""A full disk ends a flow with one sentence; its supervisor starts it again, and it continues where it stopped."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pyarrow as pa
import pytest

from infra.errors import PremiereError
from infra.run.runner import _expected_error
from streaming.stores.parquet_log import ParquetSink

SCHEMA: Final = pa.schema([("user_id", pa.string())])
# A dataflow whose recovery store lies on a file system of 1 MB.
ENGINE: Final = """
import sys
from datetime import timedelta
import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main
from infra.run.runner import _expected_error
init_db_dir(sys.argv[1], 1)
flow = Dataflow("full")
items = op.input("items", flow, TestingSource([(str(n), f"{n}" * 20_000) for n in range(100, 300)]))
op.output("out", op.stateful_map("state", items, lambda state, item: (item, None)), TestingSink([]))
try:
    run_main(flow, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(sys.argv[1]))
except Exception as error:
    print(_expected_error(error))
"""


def test_full_disk_of_the_offline_log_is_an_expected_error(tmp_path: Path) -> None:
    part = ParquetSink(tmp_path / "log", 1, SCHEMA).build_part("offline", "p000", None)
    part.write_batch([[{"user_id": "u"}]])
    draft = tmp_path / "_staging" / "log" / "p000" / f"p000-{part._state.generation}-0000000000.parquet.draft"
    draft.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        part.snapshot()
    expected = _expected_error(caught.value)
    assert isinstance(expected, PremiereError)
    assert "free space" in str(expected)


def test_full_disk_of_the_recovery_store_is_an_expected_error(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable, ENGINE]
    if subprocess.run([*command[:2], "true"], capture_output=True).returncode:
        pytest.skip("this system permits no mount in a user namespace")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "free space" in done.stdout, done.stderr


def test_another_error_of_the_engine_keeps_its_traceback() -> None:
    assert _expected_error(RuntimeError("a fault of the program")) is None
    assert _expected_error(PermissionError(13, "denied")) is None
