"""Errors that stop a flow. Each message names the cause and the remedy.

They stand apart from the Kafka code because the stores and the state classes raise them without a broker.
"""


class StreamError(Exception):
    """A flow cannot continue with this broker, topic or store. The message names the cause and the remedy."""


class BrokerUnavailableError(StreamError):
    """No broker answers."""


class BrokerAccessError(StreamError):
    """The broker denies access, or the connection settings are invalid."""


class TopicMissingError(StreamError):
    """The topic does not exist."""


class OffsetOutOfRangeError(StreamError):
    """The log does not contain the offset to resume from: retention deleted it, or the topic was recreated."""


class DeliveryError(StreamError):
    """The broker did not accept a record."""


class OwnershipError(StreamError):
    """Kafka does not confirm that this process owns its worker of the flow."""


class OwnedElsewhereError(OwnershipError):
    """Another process owns this worker of the flow."""


def stream_error(error: BaseException | None) -> StreamError | None:
    """Return the StreamError that caused an exception of the engine, or None.

    The engine wraps every exception that a source or a sink raises.
    """
    while error is not None and not isinstance(error, StreamError):
        error = error.__cause__
    return error
