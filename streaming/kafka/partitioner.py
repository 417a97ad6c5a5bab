"""The partition that Kafka's default partitioner gives to a key.

All records of a user must be in one partition, or their order is lost. Clients with another default partitioner
(librdkafka without the setting `partitioner`, some of JavaScript and Go) spread them differently.
"""

from typing import Final, NamedTuple

_SEED: Final = 0x9747B28C  # as in Kafka's Java clients (Utils.murmur2)
_FACTOR: Final = 0x5BD1E995
_WORD: Final = 0xFFFFFFFF


class PartitionRule(NamedTuple):
    """Which partition the records of a topic must have."""

    partitions: int  # of the topic
    since: int  # append time of the first record that is checked, ms: the topic may have had fewer partitions before

    def is_broken_by(self, key: bytes, partition: int, appended: int) -> bool:
        """Whether a record is in a partition where its key does not belong."""
        return appended >= self.since and partition_of(key, self.partitions) != partition


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key: murmur2 (Austin Appleby, 32 bits), without the sign, modulo the number of partitions."""
    return (_murmur2(key) & 0x7FFFFFFF) % partitions


def _murmur2(data: bytes) -> int:
    size = len(data)
    value = (_SEED ^ size) & _WORD
    for start in range(0, size - size % 4, 4):
        word = int.from_bytes(data[start : start + 4], "little") * _FACTOR & _WORD
        word = (word ^ word >> 24) * _FACTOR & _WORD
        value = (value * _FACTOR & _WORD) ^ word
    if size % 4:
        value = (value ^ int.from_bytes(data[size - size % 4 :], "little")) * _FACTOR & _WORD
    value = (value ^ value >> 13) * _FACTOR & _WORD
    return value ^ value >> 15
