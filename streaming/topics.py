"""The topics: their names, settings and schema versions."""

from typing import Final, NamedTuple

USER_EVENTS: Final = "user-events"
TITLE_LAUNCHES: Final = "title-launches"
ACTIVITY: Final = "activity"
TITLES: Final = "titles"
MODEL_VERSIONS: Final = "model-versions"
DEAD_LETTERS: Final = "dead-letters"

# Schema versions of the JSON topics. A version increases if a valid record would become invalid or change its meaning.
SCHEMA_VERSIONS: Final = {
    USER_EVENTS: 1,
    TITLE_LAUNCHES: 1,
    MODEL_VERSIONS: 1,
}
_DAY_MS: Final = 86_400_000


class Topic(NamedTuple):
    """How a topic is created: its name, its number of partitions (which must never change) and its broker settings."""

    name: str
    partitions: int
    config: dict[str, str]


def topics(event_partitions: int = 8) -> list[Topic]:
    """All topics of the project, with bounded retention.

    `event_partitions` must not change once events exist, because it determines a user's partition.
    """
    kept = {"retention.ms": str(7 * _DAY_MS)}
    public = {**kept, "message.timestamp.type": "LogAppendTime"}
    compacted = {"cleanup.policy": "compact"}
    return [
        Topic(USER_EVENTS, event_partitions, public),
        Topic(TITLE_LAUNCHES, 1, public),
        Topic(ACTIVITY, 1, kept),  # the learner log: titles and activity in one total order
        Topic(TITLES, 1, compacted),
        Topic(MODEL_VERSIONS, 1, {"retention.ms": str(30 * _DAY_MS)}),  # a version's number is its record's offset
        Topic(DEAD_LETTERS, 1, {"retention.ms": str(30 * _DAY_MS)}),
    ]
