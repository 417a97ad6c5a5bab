"""Verification, rollback and the learner act on the same versions and checkpoints."""

import shutil

import pytest

from infra.operate.verify import VerifyError, verify
from infra.operate.versions import VersionError, rollback, rollforward
from model import checkpoint
from streaming.records import Tick
from tests.support.learn_flow import produce, run_until_announced
from tests.support.learner import LogBuilder
from tests.support.versions import Deployment

pytestmark = pytest.mark.long


def test_removed_checkpoint_is_restored_from_log(learned: Deployment) -> None:
    version = learned.versions[2]
    before = checkpoint.read_manifest(version.path)["files"]
    shutil.rmtree(version.path)
    with pytest.raises(VersionError, match=r"Version 2 cannot be served\. .*`premiere verify 2 --to"):
        rollback(learned.settings, 2, learned.output.append)
    with pytest.raises(VerifyError, match="use --to"):
        verify(learned.settings, 2, None, None, learned.output.append)
    verify(learned.settings, 2, None, version.path, learned.output.append)
    assert checkpoint.load(version.path)[1]["files"] == before
    assert checkpoint.is_pinned(version.path)
    rollback(learned.settings, 2, learned.output.append)
    rollforward(learned.settings, learned.output.append)


def test_rollforward_serves_version_learned_during_rollback(learned: Deployment) -> None:
    rollback(learned.settings, 0, learned.output.append)
    log = LogBuilder(seed=6, d_text=256).add_rounds(12)
    log.write(Tick(ts=0), later=3_000)
    count = len(learned.versions)
    produce(learned.settings, [message._replace(appended=message.appended + 10**8) for message in log.messages])
    run_until_announced(learned.settings, count + 1)
    newest = len(learned.versions) - 1
    assert learned.versions[-1].cause == "learned"
    rollforward(learned.settings, learned.output.append)
    assert (learned.versions[-1].original_version, learned.versions[-1].path) == (newest, learned.versions[newest].path)
