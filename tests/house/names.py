"""Retired names: how tests/house/retired.txt is read, and which names a source file defines or uses."""

import ast
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, NamedTuple

KINDS: Final = {"class", "function", "name", "module", "setting", "command", "metric", "field", "prose"}


class Retired(NamedTuple):
    """One line of retired.txt: kind, old name, replacement, and a glob of the files where the old name is retired."""

    kind: str
    old: str
    new: str
    where: str

    def applies(self, name: str) -> bool:
        """Whether the entry is about this file."""
        return fnmatch(name, self.where)

    @property
    def pattern(self) -> str:
        """What is searched for in text files: a setting's environment variable, else the word itself."""
        return f"PREMIERE_{self.old.upper()}" if self.kind == "setting" else re.escape(self.old)


def read_retired(path: Path) -> list[Retired]:
    """The entries of retired.txt; lines that begin with # are comments."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    parts = [[part.strip() for part in line.split("|")] for line in lines]
    return [Retired(kind, old, new, where[0] if where else "*") for kind, old, new, *where in parts]


def identifiers(name: str, text: str) -> dict[str, set[str]]:
    """Names of a source file by kind.

    class, function: definitions · name: every identifier (definition, variable, attribute, argument) · module: the
    file's own name · field: quoted strings, such as the keys of a JSON report.
    """
    tree = ast.parse(text)
    classes, functions, names, strings = set[str](), set[str](), set[str](), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            classes.add(node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions.add(node.name)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            names.add(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.add(node.value)
    return {
        "class": classes,
        "function": functions,
        "name": names | classes | functions,
        "module": {Path(name).stem},
        "field": strings,
    }
