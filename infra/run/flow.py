"""What each flow is made into from the settings, and what runs it needs to know of it."""

from collections.abc import Sequence
from typing import NamedTuple

from bytewax.dataflow import Dataflow

from streaming.kafka.source import KafkaSource


class Flow(NamedTuple):
    """A dataflow, and its sources, whose last offsets are committed once it has ended well."""

    dataflow: Dataflow
    sources: Sequence[KafkaSource]
