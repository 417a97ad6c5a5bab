"""The built wheel holds every package: its command starts in an environment that knows nothing of the checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as `pip install` would fetch it, built from a copy without build leftovers."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and not name.startswith(("tests/", "docs/")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source)]
    subprocess.run(build, check=True, timeout=300)
    (built,) = out.glob("premiere-*.whl")
    return built


def test_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    packages = ("streaming", "model", "kernels", "features", "infra")
    wanted = {str(path.relative_to(ROOT)) for name in packages for path in (ROOT / name).rglob("*.py")}
    wanted -= {name for name in wanted if name.startswith("infra/docker/")}  # copied into the image by its Dockerfile
    held = set(ZipFile(wheel).namelist())
    assert wanted - held == set()
    assert "infra/demo/page.html" in held


def test_command_of_the_installed_wheel_starts(wheel: Path, tmp_path: Path) -> None:
    """Dependencies come from this environment by a path file, which does not bring its editable install along."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    (site,) = (tmp_path / "env" / "lib").glob("python3.*/site-packages")
    ZipFile(wheel).extractall(site)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    start = "import sys; from infra.cli.main import app; sys.argv[0] = 'premiere'; app()"
    command = [str(tmp_path / "env" / "bin" / "python"), "-P", "-c", start]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for words in (["--help"], ["demo", "--help"]):
        started = [*command, *words]
        done = subprocess.run(started, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "Usage: premiere" in done.stdout
    where = "import infra.cli.main as m; print(m.__file__)"
    found = subprocess.run([*command[:2], "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert Path(found.stdout.strip()).is_relative_to(site)
