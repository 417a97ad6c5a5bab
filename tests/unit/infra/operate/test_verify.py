"""A version that is recomputed from the log equals its checkpoint bit for bit, or the difference is named."""

import pytest

from infra.operate.verify import VerifyError, verify
from infra.operate.versions import VersionError
from infra.output_files import OutputError
from model import checkpoint
from tests.support.versions import Deployment

pytestmark = pytest.mark.long


def test_recomputed_version_is_bit_identical(learned: Deployment) -> None:
    number = len([version for version in learned.versions if version.cause == "learned"]) - 1
    for start in (0, None):
        verify(learned.settings, number, start, None, learned.output.append)
    assert ["bit-identical" in line for line in learned.output] == [True, True]
    assert "from version 0" in learned.output[0]


def test_first_version_is_recomputed_from_log_beginning(learned: Deployment) -> None:
    verify(learned.settings, 0, None, None, learned.output.append)
    assert "from the beginning of the log, is bit-identical" in learned.output[0]


def test_verify_names_the_file_that_differs(learned: Deployment) -> None:
    path = learned.versions[2].path
    state, manifest = checkpoint.load(path)
    state["log"]["replay_ratio"] += 1e-9
    checkpoint.save(path, state, {name: manifest[name] for name in manifest if name != "files"})
    with pytest.raises(VerifyError, match=r"differs in log\.state\."):
        verify(learned.settings, 2, 0, None, learned.output.append)


def test_impossible_verifications_are_refused(learned: Deployment) -> None:
    with pytest.raises(VersionError, match="There is no version 999: `premiere versions`"):
        verify(learned.settings, 999, None, None, learned.output.append)
    with pytest.raises(VerifyError, match="Version 3 is not older"):
        verify(learned.settings, 2, 3, None, learned.output.append)
    with pytest.raises(VerifyError, match="There is already a checkpoint at"):
        verify(learned.settings, 2, None, learned.versions[1].path, learned.output.append)
    with pytest.raises(OutputError, match="cannot be written"):
        verify(
            learned.settings, 2, None, f"{learned.versions[1].path}/{checkpoint.MANIFEST}/new", learned.output.append
        )
    assert learned.output == []
