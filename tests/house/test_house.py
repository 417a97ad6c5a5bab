"""House rules, read from the files themselves. Each test lists every offender."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Final

from infra.cli.main import app
from infra.settings import Settings
from tests.house.names import KINDS, identifiers, read_retired
from tests.support.paths import ROOT

MAX_FILE_LINES: Final = 300
MAX_FUNCTION_LINES: Final = 50
BELOW: Final[dict[str, set[str]]] = {  # what each package may import of the others
    "infra": {"streaming", "features", "model", "kernels"},
    "streaming": {"features", "model", "kernels"},
    "features": {"kernels"},
    "model": {"kernels"},
    "kernels": set(),
}
UNFINISHED: Final = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
MACHINE_PATH: Final = re.compile(r"(?<![\w./-])/(work|home|root|Users)/")
DICT_QUEUE: Final = re.compile(r"(?:\bdel\b|\.pop\()[^\n]*\bnext\(iter\(")
REGISTRY_HOST: Final = re.compile(
    r"py" + r"pi\.org|pythonhos" + r"ted|npm" + r"js|download\.pyt" + r"orch|index-" + r"url|repo1?\.ma" + r"ven", re.I
)
HOUSE: Final = ROOT / "tests" / "house"


def _tracked() -> list[Path]:
    """Files that git tracks, and new ones that it does not ignore."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


FILES: Final = _tracked()
SOURCES: Final = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(FILES) if path.suffix == ".py"}
TREES: Final = {name: ast.parse(text) for name, text in SOURCES.items()}


def test_imports_go_down_and_are_declared() -> None:
    """infra -> streaming -> {features, model} -> kernels, no cycle between modules, every distribution declared."""
    known, declared = packages_distributions(), _declared()
    own, offenders = {*BELOW, "tests", "benchmarks"}, []
    for name, tree in TREES.items():
        package = name.split("/")[0]
        allowed = BELOW.get(package, set(own)) | {package}
        for line, imported in _imports(tree):
            top = imported.split(".")[0]
            if top in own and top not in allowed:
                offenders.append(f"{name}:{line}: {package} imports {top}")
            external = top not in own and top not in sys.stdlib_module_names and top in known
            if external and not declared & {_normalized(one) for one in known[top]}:
                offenders.append(f"{name}:{line}: {top} is not declared in pyproject.toml")
    cycles = _cycles({name: set(_modules_imported(name)) for name in TREES if not name.startswith("tests/")})
    assert offenders + cycles == []
    assert {name.split("/")[0] for name in TREES} >= {*BELOW, "tests"}  # every package was read


def test_experiments_do_not_subclass_the_product() -> None:
    """An experiment measures through hooks and composes its variants (`infra/experiments/variants.py`)."""
    offenders = []
    for name, tree in TREES.items():
        if name.startswith(("infra/experiments/", "benchmarks/")):
            product = {
                alias.asname or alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("model", "streaming")
                for alias in node.names
            }
            offenders += [
                f"{name}:{node.lineno}: {node.name} subclasses {base}"
                for node in ast.walk(tree)
                if isinstance(node, ast.ClassDef)
                for base in map(ast.unparse, node.bases)
                if base.split(".")[0] in product
            ]
    assert offenders == []


def test_files_and_functions_stay_small() -> None:
    offenders = []
    for name, text in SOURCES.items():
        if (lines := len(text.splitlines())) > MAX_FILE_LINES:
            offenders.append(f"{name}: {lines} lines")
        for node in ast.walk(TREES[name]):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    offenders.append(f"{name}:{node.lineno}: {node.name} has {length} lines")
    assert offenders == []


def test_unit_tests_mirror_the_code() -> None:
    """tests/unit/<package>/.../test_<module>[_<aspect>].py tests one module; a module without such a file is listed in
    covered_elsewhere.txt with the test that covers it."""
    modules = {name for name in SOURCES if name.split("/")[0] in {*BELOW, "benchmarks"} and "__" not in name}
    tests = [name for name in SOURCES if name.startswith("tests/unit/")]
    covered: set[str] = set()
    offenders = []
    for test in tests:
        folder, stem = test.removeprefix("tests/unit/").rsplit("/", 1)
        stem = stem.removesuffix(".py").removeprefix("test_")
        tested = [m for m in modules if m.rsplit("/", 1)[0] == folder and f"{stem}_".startswith(Path(m).stem + "_")]
        covered |= set(tested)
        if not tested:
            offenders.append(f"{test}: there is no module {folder}/{stem}.py")
    for line in (HOUSE / "covered_elsewhere.txt").read_text().splitlines():
        module, _, test = line.partition(" ")
        if line and not line.startswith("#"):
            if module not in modules or module in covered:
                offenders.append(f"covered_elsewhere.txt: {module} does not need this line")
            if not (ROOT / test.strip()).is_file():
                offenders.append(f"covered_elsewhere.txt: there is no {test.strip()}")
            covered.add(module)
    offenders += [f"{module}: no test of its name" for module in sorted(modules - covered)]
    assert offenders == []


def test_no_retired_name_returns() -> None:
    """Exact identifiers for code, settings, commands and metrics; whole words for prose. See retired.txt."""
    entries = read_retired(HOUSE / "retired.txt")
    assert {entry.kind for entry in entries} == KINDS
    offenders = [f"setting {e.old}" for e in entries if e.kind == "setting" and e.old in Settings.model_fields]
    commands = {(command.name or command.callback.__name__) for command in app.registered_commands if command.callback}
    offenders += [f"command {e.old}" for e in entries if e.kind == "command" and e.old in commands]
    for name, text in SOURCES.items():
        if not name.startswith("tests/house/"):
            found = identifiers(name, text)
            offenders += [
                f"{name}: {e.kind} {e.old}" for e in entries if e.old in found.get(e.kind, ()) and e.applies(name)
            ]
    words = [(e, re.compile(rf"\b{e.pattern}\b", re.I)) for e in entries if e.kind in ("prose", "setting", "metric")]
    for name, text in _texts():
        for number, line in enumerate(text.splitlines(), 1):
            offenders += [f"{name}:{number}: {e.kind} {e.old}" for e, word in words if word.search(line)]
    assert offenders == []


def _texts() -> Iterator[tuple[str, str]]:
    """Every text file but dated notes, which keep the words of their day, and the list of retired names."""
    for path in FILES:
        name = str(path.relative_to(ROOT))
        if not name.startswith(("tests/house/", "docs/research-log/", "tests/data/")) and path.suffix not in (
            ".png",
            ".csv",
        ):
            yield name, path.read_text()


def test_files_say_what_they_are_and_nothing_is_left_undone() -> None:
    """A docstring in every module, no unfinished mark, no path of one machine, no package registry."""
    offenders = []
    for name, text in SOURCES.items():
        if text and not ast.get_docstring(TREES[name]):
            offenders.append(f"{name}: no module docstring")
        if UNFINISHED.search(text):
            offenders.append(f"{name}: an unfinished mark")
    for path in FILES:
        try:
            text = path.read_text()
        except UnicodeDecodeError:  # a picture
            continue
        matches = [m[0] for rule in (MACHINE_PATH, REGISTRY_HOST) for m in rule.finditer(text)]
        offenders += [f"{path.relative_to(ROOT)}: {match}" for match in matches]
    assert offenders == []


def test_no_dict_is_a_queue() -> None:
    """Deleting the first key of a dict walks over all that were deleted before: `OrderedDict.popitem(last=False)`."""
    product = {name: text for name, text in SOURCES.items() if name.split("/")[0] in BELOW}
    assert [f"{name}: {match[0]}" for name, text in product.items() for match in DICT_QUEUE.finditer(text)] == []


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides where it goes"
            yield node.lineno, node.module or ""
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def _modules_imported(name: str) -> Iterator[str]:
    """Project modules that a module imports when it is loaded, as file names."""
    tree = ast.Module([node for node in TREES[name].body if not isinstance(node, ast.If)], [])
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for _, dotted in _imports(ast.Module([node], [])):
                if (file := dotted.replace(".", "/") + ".py") in SOURCES:
                    yield file


def _cycles(graph: dict[str, set[str]]) -> list[str]:
    """Cycles of imports, each once."""
    found: list[str] = []
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for imported in sorted(graph.get(name, ())):
                visit(imported, [*path, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])
    return found


def _declared() -> set[str]:
    """Distributions that pyproject.toml declares, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = sum(project["optional-dependencies"].values(), project["dependencies"])
    return {_normalized(re.split(r"[^\w.-]", line)[0]) for line in lines}


def _normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
