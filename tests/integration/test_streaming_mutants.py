"""Each mutant of the streaming code is killed by the test that it names: that test fails if the code has the fault."""

from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.tools.mutants import STREAMING_MUTANTS, Mutant, copy_project, survives


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("mutant", STREAMING_MUTANTS, ids=[one.name for one in STREAMING_MUTANTS])
def test_named_test_kills_the_mutant(mutant: Mutant, project: Path) -> None:
    assert not survives(mutant, project)
    assert (project / mutant.file).read_text() == (ROOT / mutant.file).read_text()


def test_there_are_ten_streaming_mutants_and_each_names_its_test() -> None:
    assert len(STREAMING_MUTANTS) >= 10
    assert all("::test_" in mutant.killed_by for mutant in STREAMING_MUTANTS)
