"""An exception of the engine leads to the StreamError that caused it."""

import pytest
from bytewax.errors import BytewaxRuntimeError
from bytewax.testing import run_main

from streaming.errors import TopicMissingError, stream_error
from streaming.kafka.source import KafkaSource
from tests.support.streams import flow


def test_stream_error_is_found_behind_the_engines_exception(kafka: str) -> None:
    with pytest.raises(BytewaxRuntimeError) as raised:
        run_main(flow(KafkaSource({"bootstrap.servers": kafka}, "nowhere", "g"), []))
    assert isinstance(stream_error(raised.value), TopicMissingError)


def test_other_exceptions_have_no_stream_error() -> None:
    assert stream_error(ValueError("something else")) is None
