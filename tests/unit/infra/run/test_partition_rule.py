"""Since when a topic has its number of partitions is kept in the data folder."""

from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from infra.run.partition_rule import FILE, partition_rule
from infra.settings import Settings


def test_rule_is_kept_until_the_topic_gets_more_partitions(kafka: str, topic: str, tmp_path: Path, broker: str) -> None:
    settings = Settings(bootstrap_servers=kafka, data_dir=tmp_path)
    first = partition_rule(settings, topic)
    assert first.partitions == 1
    assert partition_rule(settings, topic) == first
    if broker != "apache":
        pytest.skip("the embedded broker cannot add partitions")
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result(30)
    later = partition_rule(settings, topic)
    assert later.partitions == 3
    assert later.since > first.since


@pytest.mark.parametrize("content", ["", "[]", '{"topic": 1}', '{"topic": "x", "partitions": "y"}'])
def test_damaged_file_starts_anew(kafka: str, topic: str, tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    settings = Settings(bootstrap_servers=kafka, data_dir=tmp_path)
    assert partition_rule(settings, topic) == partition_rule(settings, topic)
