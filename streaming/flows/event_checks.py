"""The checks of an event's partition and time in the flow `features`."""

from datetime import timedelta

from streaming.kafka.dead_letters import MAX_FUTURE, InvalidRecord, check_times
from streaming.kafka.partitioner import PartitionRule, partition_of
from streaming.kafka.source import Message
from streaming.kafka.time_units import TimeUnits


class EventChecks:
    """They depend on the deployment, or on the events before."""

    def __init__(self, max_future: timedelta = MAX_FUTURE, rule: PartitionRule | None = None) -> None:
        self.max_ahead_ms, self.rule = int(max_future.total_seconds() * 1000), rule
        self.units = TimeUnits()

    def check(self, ts: int, message: Message) -> None:
        """Raises InvalidRecord."""
        key, rule = message.key or b"", self.rule
        if rule is not None and rule.is_broken_by(key, message.partition, message.appended):
            wanted = partition_of(key, rule.partitions)
            raise InvalidRecord(
                f"partition: the key belongs to partition {wanted} of {rule.partitions}; use the partitioner murmur2"
            )
        check_times(ts, message.appended, self.max_ahead_ms)
        if problem := self.units.problem(message.partition, ts):
            raise InvalidRecord(problem)
