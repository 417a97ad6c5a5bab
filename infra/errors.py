"""Errors whose cause is outside the program.

The command line catches `PremiereError` and prints its message without a traceback. Any other exception is a bug and
keeps its traceback. The message is one sentence that states the problem and its remedy.
"""


class PremiereError(Exception):
    """Something outside the program prevents the operation; the message states the problem and its remedy."""

    exit_code = 1  # of the command line


class FlowOwnedError(PremiereError):
    """Another process owns the flow. A supervisor must not start it again at once."""

    exit_code = 3


class ServiceError(PremiereError):
    """A service or a child process did not start, does not answer, or died."""


class SettingsError(PremiereError):
    """A setting or an option is missing or invalid. Another start with the same settings would fail too."""

    exit_code = 2


class InUseError(SettingsError):
    """Another process uses the data folder now. It may end soon, so another start may succeed."""

    exit_code = 1


class TopicError(PremiereError):
    """A topic is missing, inaccessible, or configured incompatibly."""


class KafkaSettingsError(TopicError):
    """The Kafka settings are invalid, or the broker refused the login. Another start would fail too."""

    exit_code = SettingsError.exit_code


class PortError(PremiereError):
    """A requested port is in use."""
