"""The topics: the hand-overs between flows."""

from typing import Final, NamedTuple

USER_EVENTS: Final = "user-events"
TITLE_LAUNCHES: Final = "title-launches"
ACTIVITY: Final = "activity"
TITLES: Final = "titles"
MODEL_VERSIONS: Final = "model-versions"
DEAD_LETTERS: Final = "dead-letters"

# Of the JSON topics. One rises where a record that was right before would not be any more, or would mean another thing.
SCHEMA_VERSIONS: Final = {
    USER_EVENTS: 1,
    TITLE_LAUNCHES: 1,
    MODEL_VERSIONS: 1,
}
_DAY_MS: Final = 86_400_000


class Topic(NamedTuple):
    """A topic as it is created: its name, partitions (fixed for life) and broker settings."""

    name: str
    partitions: int
    config: dict[str, str]


def topics(event_partitions: int = 8) -> list[Topic]:
    """Every topic of the project, with bounded retention; a user's partition never changes once events exist."""
    kept = {"retention.ms": str(7 * _DAY_MS)}
    public = {**kept, "message.timestamp.type": "LogAppendTime"}
    compacted = {"cleanup.policy": "compact"}
    return [
        Topic(USER_EVENTS, event_partitions, public),
        Topic(TITLE_LAUNCHES, 1, public),
        Topic(ACTIVITY, 1, kept),  # the learner's log: titles and activities in one total order
        Topic(TITLES, 1, compacted),
        Topic(MODEL_VERSIONS, 1, {"retention.ms": str(30 * _DAY_MS)}),  # a version's number is its offset
        Topic(DEAD_LETTERS, 1, {"retention.ms": str(30 * _DAY_MS)}),
    ]
