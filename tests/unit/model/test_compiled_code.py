"""Compiled code is kept apart for each state of the sources, also of those in other files than the cached function."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.compiled_code import VARIABLE, cache_folder, sources_hash

CALLED = """
from numba import njit

@njit(cache=True)
def value():
    return {}
"""
CALLER = """
from numba import njit
from model.called import value

@njit(cache=True)
def twice():
    return 2 * value()
"""


def run(folder: Path, cache: Path) -> str:
    """What the compiled caller returns in a new process."""
    env = {**os.environ, "PYTHONPATH": str(folder), VARIABLE: str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
    program = "from model.caller import twice; print(twice())"
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_change_of_a_called_function_is_seen(tmp_path: Path) -> None:
    package = tmp_path / "model"
    package.mkdir()
    for name in ("__init__.py", "compiled_code.py"):
        (package / name).write_text((Path(__file__).parents[3] / "model" / name).read_text())
    (package / "called.py").write_text(CALLED.format(3))
    (package / "caller.py").write_text(CALLER)
    assert run(tmp_path, tmp_path / "cache") == "6"
    (package / "called.py").write_text(CALLED.format(5))
    assert run(tmp_path, tmp_path / "cache") == "10"
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_name_and_content_of_each_file_count(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    found = [sources_hash(tmp_path)]
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    found.append(sources_hash(tmp_path))
    (tmp_path / "b.py").write_text("2")
    found.append(sources_hash(tmp_path))
    (tmp_path / "notes.txt").write_text("2")
    assert len(set(found)) == 3
    assert sources_hash(tmp_path) == found[-1]


def test_child_process_uses_the_folder_of_its_parent(tmp_path: Path) -> None:
    folder = cache_folder(str(tmp_path), "0123")
    assert folder == tmp_path / "0123"
    assert cache_folder(str(folder), "0123") == folder


def test_folder_that_cannot_be_made_is_left_to_numba(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert cache_folder(str(tmp_path / "file"), "0123") is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache_folder("", "0123") is None
