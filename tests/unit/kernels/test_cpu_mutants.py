"""The mutants of `tests/tools/` match the current source. Running them takes minutes: not here."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.tools.limit_mutants import LIMIT_MUTANTS
from tests.tools.mutants import CPU, KERNEL_MUTANTS, MUTANTS, TESTS, Mutant, survives
from tests.tools.trust_mutants import TRUST_MUTANTS

ALL = MUTANTS + LIMIT_MUTANTS + TRUST_MUTANTS
TEST_OF_ONE = "from kernels.cpu import ONE\n\n\ndef test_one():\n    assert ONE == 1\n"


@pytest.mark.parametrize("mutant", ALL, ids=[f"{one.file}: {one.name}" for one in ALL])
def test_mutant_matches_the_source(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == mutant.times
    assert mutant.new != mutant.old
    ast.parse((ROOT / mutant.file).read_text().replace(mutant.old, mutant.new))  # any test would kill a syntax error


def test_mutant_survives_unless_a_test_fails(tmp_path: Path) -> None:
    source = tmp_path / CPU
    for path, text in ((source, "ONE, TWO = 1, 2\n"), (tmp_path / TESTS[CPU], TEST_OF_ONE)):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert not survives(Mutant("tested", CPU, "1,", "7,"), tmp_path)
    assert survives(Mutant("untested", CPU, ", 2", ", 7"), tmp_path)
    assert source.read_text() == "ONE, TWO = 1, 2\n"
    with pytest.raises(SystemExit, match="update the mutant"):
        survives(Mutant("outdated", CPU, "THREE", "FOUR"), tmp_path)


def test_every_kernel_has_mutants_with_unique_names() -> None:
    named = Counter((one.file, one.name) for one in ALL)
    assert max(named.values()) == 1
    assert {one.file for one in KERNEL_MUTANTS} == set(TESTS)
