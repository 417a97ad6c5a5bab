"""A deployment whose learner has announced model versions, for the tests of versions and of their verification."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.operate.versions import version_rows
from infra.settings import Settings
from infra.topics import create_topics
from streaming.records import Tick, Version
from streaming.topics import topics
from tests.support.kafka import StartBroker
from tests.support.learn_flow import announced_versions, produce, run_until_announced
from tests.support.learner import LogBuilder

ANNOUNCED_VERSIONS = 4  # at least


class Deployment:
    """Settings of a deployment whose learner has announced versions, and the output of the commands."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.output = settings, list[str]()
        self._copy = settings.data_dir / "copy"  # of the checkpoints
        shutil.copytree(settings.checkpoints_url(), self._copy)

    @property
    def versions(self) -> list[Version]:
        return announced_versions(self.settings)

    def rows(self) -> list[dict[str, Any]]:
        return version_rows(self.settings)

    def restore(self) -> None:
        """Restore the original checkpoints, and clear the output."""
        shutil.rmtree(self.settings.checkpoints_url())
        shutil.copytree(self._copy, self.settings.checkpoints_url())
        self.output.clear()


@contextmanager
def run_deployment(start_broker: StartBroker, folder: Path) -> Iterator[Deployment]:
    """A broker with a log and at least `ANNOUNCED_VERSIONS` versions that the flow `learn` has learned from it."""
    with start_broker(folder / "kafka") as address:
        create_topics({"bootstrap.servers": address}, topics())
        settings = Settings(
            bootstrap_servers=address, data_dir=folder, checkpoint_seconds=2, keep_checkpoints=50, metrics_port=0
        )
        log = LogBuilder(seed=5, d_text=256).add_rounds(30)
        log.write(Tick(ts=0), later=3_000)
        produce(settings, log.messages)
        run_until_announced(settings, ANNOUNCED_VERSIONS)
        yield Deployment(settings)
