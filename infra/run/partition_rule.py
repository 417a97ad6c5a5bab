"""Since when a topic has its present number of partitions, as far as this data folder knows.

Records that were appended before lie where an earlier number of partitions put them.
"""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from infra.settings import Settings
from infra.topics import log_identity, partition_counts
from streaming.kafka.partitioner import PartitionRule

FILE: Final = "partitions.json"  # in data_dir


def partition_rule(settings: Settings, topic: str) -> PartitionRule:
    """The rule for the records of a topic; notes a new number of partitions. Raises StreamError."""
    config = settings.kafka_config()
    partitions, identity = partition_counts(config)[topic], log_identity(config, [topic])
    file = settings.data_dir / FILE
    rule = _read(file, identity)
    if rule is None or rule.partitions != partitions:
        rule = PartitionRule(partitions, round(time.time() * 1000))
        _write(file, identity, rule)
    return rule


def _read(file: Path, identity: str) -> PartitionRule | None:
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(file.read_text())
        if found["topic"] == identity:
            return PartitionRule(int(found["partitions"]), int(found["since"]))
    return None


def _write(file: Path, identity: str, rule: PartitionRule) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"topic": identity, **rule._asdict()}))
    new.replace(file)
