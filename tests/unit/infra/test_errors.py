"""The command line can report every error that `infra` defines."""

import ast

import pytest
import typer
from typer.testing import CliRunner

from infra import errors
from infra.cli.main import app
from infra.errors import PremiereError
from tests.support.paths import ROOT

ERRORS = {name: value for name, value in vars(errors).items() if isinstance(value, type)}


def test_every_error_of_infra_is_a_premiere_error() -> None:
    found = []
    for path in sorted((ROOT / "infra").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                found.append(node.name)
                if node.name != PremiereError.__name__:
                    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                    assert any(issubclass(ERRORS.get(base, Exception), PremiereError) for base in bases), node.name
    assert {*ERRORS} <= {*found}


@pytest.mark.parametrize("error", ERRORS.values(), ids=list(ERRORS))
def test_error_is_printed_without_a_traceback(error: type[PremiereError]) -> None:
    command_group = app.info.cls
    assert command_group is not None
    failing = typer.Typer(cls=command_group, pretty_exceptions_enable=False)

    @failing.command()
    def fail() -> None:
        raise error("Redis does not answer: start it.")

    @failing.command()
    def other() -> None:
        """With one command only, typer would make no group."""

    result = CliRunner().invoke(failing, ["fail"])
    assert (result.exit_code, result.stdout) == (getattr(error, "exit_code", 1), "")
    assert result.stderr == "premiere: Redis does not answer: start it.\n"
