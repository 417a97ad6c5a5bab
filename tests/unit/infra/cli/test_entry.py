"""The program `premiere` ends quietly on Ctrl-C, also while it is imported."""

import subprocess
import sys
from pathlib import Path

SLOW_IMPORT = """
import os, signal
os.kill(os.getpid(), signal.SIGINT)
"""


def test_interrupt_during_the_import_has_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(SLOW_IMPORT)  # is imported first by the command line
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from infra.cli.entry import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_program_runs_the_command_line() -> None:
    command = [sys.executable, "-P", "-c", "from infra.cli.entry import main; main()", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "streaming recommender" in done.stdout


def test_handler_of_the_command_line_is_the_usual_one() -> None:
    show = "main.app = lambda: print(signal.getsignal(signal.SIGINT))"
    program = f"import signal; from infra.cli import entry, main; {show}; entry.main()"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60)
    assert "default_int_handler" in done.stdout, done.stderr
