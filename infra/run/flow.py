"""The result of a flow builder: the dataflow and the sources that the runner must commit."""

from collections.abc import Sequence
from typing import NamedTuple

from bytewax.dataflow import Dataflow

from streaming.kafka.source import KafkaSource


class Flow(NamedTuple):
    """A dataflow that is ready to run."""

    dataflow: Dataflow
    sources: Sequence[KafkaSource]  # their last offsets are committed when the dataflow has ended without an error
