"""The heartbeat advances while a dataflow makes steps, also without input, and stands still while a step hangs."""

import threading
import time
from datetime import timedelta

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main
from prometheus_client import REGISTRY

from streaming.kafka.source import KafkaSource, Message


def heartbeat() -> float:
    return REGISTRY.get_sample_value("premiere_heartbeat_timestamp_seconds") or 0.0


def test_heartbeat_advances_without_input_but_not_while_a_step_hangs(kafka: str, topic: str) -> None:
    stop, beats = threading.Event(), list[float]()

    def step(poll: list[Message]) -> list[Message]:
        beats.append(heartbeat())
        if len(beats) == 3:
            entered = time.time()
            time.sleep(0.5)
            assert heartbeat() <= entered
            stop.set()
        return poll

    source = KafkaSource({"bootstrap.servers": kafka}, topic, "g", idle=timedelta(milliseconds=100), stop=stop)
    dataflow = Dataflow("heartbeat")
    op.output("out", op.map("step", op.input("in", dataflow, source), step), TestingSink(list[list[Message]]()))
    started = time.time()
    run_main(dataflow)
    assert started <= beats[0] < beats[1] < beats[2]
