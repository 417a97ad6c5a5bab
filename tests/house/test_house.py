"""The house rules, read from the files themselves: small pieces, imports that go downhill, nothing left undone."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Final

import pytest

from tests.support.paths import ROOT

LINES: Final = 300  # of a file
SCREEN: Final = 50  # lines of a function
BELOW: Final[dict[str, set[str]]] = {  # what each package may import of the others
    "infra": {"streaming", "features", "model", "kernels"},
    "streaming": {"features", "model", "kernels"},
    "features": {"kernels"},
    "model": {"kernels"},
    "kernels": set(),
}
UNDONE: Final = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
MACHINE: Final = re.compile(r"(?<![\w./-])/(work|home|root|Users)/")  # a path that only one machine has
REGISTRY: Final = re.compile(
    r"py" + r"pi\.org|pythonhos" + r"ted|npm" + r"js|download\.pyt" + r"orch|index-" + r"url|repo1?\.ma" + r"ven", re.I
)


def _tracked() -> list[Path]:
    """The files of the project: those git tracks, and new ones that it would."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


FILES: Final = _tracked()
SOURCES: Final = sorted(path for path in FILES if path.suffix == ".py")
ids = [str(path.relative_to(ROOT)) for path in SOURCES]
each_source = pytest.mark.parametrize("path", SOURCES, ids=ids)


def test_every_package_is_looked_at() -> None:
    seen = {path.relative_to(ROOT).parts[0] for path in SOURCES}
    assert seen >= {*BELOW, "tests"}


@each_source
def test_imports_go_downhill(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    allowed = BELOW.get(package, set(BELOW)) | {package}
    for line, name in _imports(ast.parse(path.read_text())):
        assert name not in BELOW or name in allowed, f"line {line}: {package} imports {name}"


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Each import's line, and the top-level package that it is of."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides where it goes"
            yield node.lineno, (node.module or "").split(".")[0]


@each_source
def test_every_package_that_is_imported_is_declared(path: Path) -> None:
    own = {*BELOW, "tests", "benchmarks"}
    for line, name in _imports(ast.parse(path.read_text())):
        if name not in own and name not in sys.stdlib_module_names and name in KNOWN:
            assert DECLARED & {_plain(d) for d in KNOWN[name]}, f"line {line}: {name} is not in pyproject.toml"


def _declared() -> set[str]:
    """The distributions that pyproject.toml asks for, the extras' too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = sum(project["optional-dependencies"].values(), project["dependencies"])
    return {_plain(re.split(r"[^\w.-]", line)[0]) for line in asked}


def _plain(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


KNOWN: Final = packages_distributions()
DECLARED: Final = _declared()


@each_source
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= SCREEN, f"{node.name} has {length} lines"


@each_source
def test_every_module_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert not text or ast.get_docstring(ast.parse(text)), "no module docstring"


@each_source
def test_nothing_is_left_undone(path: Path) -> None:
    assert not UNDONE.search(path.read_text())


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in FILES:
        try:
            text = path.read_text()
        except UnicodeDecodeError:  # a picture
            continue
        found += [f"{path.relative_to(ROOT)}: {m[0]}" for rule in (MACHINE, REGISTRY) for m in rule.finditer(text)]
    assert found == []
