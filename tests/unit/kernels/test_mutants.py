"""The faults of `tests/tools/mutants.py` still fit the source that they change; to run them takes minutes: not here."""

from collections import Counter

import pytest

from tests.support.paths import ROOT
from tests.tools.mutants import MUTANTS, TESTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=[f"{one.file}: {one.what}" for one in MUTANTS])
def test_a_mutant_changes_what_stands_in_the_source(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == mutant.times
    assert mutant.new != mutant.old


def test_every_kernel_with_tests_has_mutants_of_different_names() -> None:
    named = Counter((one.file, one.what) for one in MUTANTS)
    assert max(named.values()) == 1
    assert {file for file, _ in named} == set(TESTS)
