"""What the world does wrong, said in one sentence.

The command line catches `PremiereError` at the top and prints its sentence; anything else is our own mistake and keeps
its traceback. Raise it (or a child) with what happened and what to do about it.
"""


class PremiereError(Exception):
    """Something outside the program is not as it must be; the message says what, and the remedy."""


class ServiceError(PremiereError):
    """A process that we started did not come up, or died."""


class SettingsError(PremiereError):
    """A setting is missing or cannot be used."""


class TopicError(PremiereError):
    """A topic is missing, or is not as the project needs it."""


class PortError(PremiereError):
    """A port that was asked for is taken."""
