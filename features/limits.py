"""Limits that both the feature store and the flows use, in a module that imports neither Feast nor torch."""

from typing import Final

RECENT_EVENTS: Final = 50  # newest events of a user in a row of the view `user_activity`
MAX_TEXT_WIDTH: Final = 4096  # numbers of a text embedding
MAX_VECTOR_WIDTH: Final = 2048  # numbers of a vector that a launch brings
MAX_EMBEDDING_WIDTH: Final = MAX_TEXT_WIDTH + MAX_VECTOR_WIDTH
