"""The topics: their names, settings and schema versions."""

from typing import Final, NamedTuple

USER_EVENTS: Final = "user-events"
ERASURE_REQUESTS: Final = "erasure-requests"
TITLE_LAUNCHES: Final = "title-launches"
TITLE_WITHDRAWALS: Final = "title-withdrawals"
ACTIVITY: Final = "activity"
TITLES: Final = "titles"
MODEL_VERSIONS: Final = "model-versions"
DEAD_LETTERS: Final = "dead-letters"
OWNERS: Final = "owners"
PUBLIC_TOPICS: Final = (USER_EVENTS, ERASURE_REQUESTS, TITLE_LAUNCHES, TITLE_WITHDRAWALS)  # that producers write

# Schema versions of the JSON topics. A version increases if a valid record would become invalid or change its meaning.
SCHEMA_VERSIONS: Final = {
    USER_EVENTS: 2,
    ERASURE_REQUESTS: 1,
    TITLE_LAUNCHES: 2,
    TITLE_WITHDRAWALS: 1,
    MODEL_VERSIONS: 1,
}
_DAY_MS: Final = 86_400_000
_MIB: Final = 1 << 20
DEAD_LETTER_DAYS: Final = 30
# Erasure requests and withdrawals apply to records and dead letters that are read later, so they are kept longer than
# these, by more than the week that the last segment of a topic may outlive its retention.
REQUEST_DAYS: Final = DEAD_LETTER_DAYS + 15


class Topic(NamedTuple):
    """How a topic is created: its name, its number of partitions (which must never change) and its broker settings."""

    name: str
    partitions: int
    config: dict[str, str]


def topics(event_partitions: int = 8) -> list[Topic]:
    """All topics of the project. The retention of the topics that producers fill is bounded in time and in bytes.

    `event_partitions` must not change once events exist, because it determines a user's partition.
    """
    compacted = {"cleanup.policy": "compact"}
    return [
        Topic(USER_EVENTS, event_partitions, _public(7, 4096)),
        Topic(ERASURE_REQUESTS, event_partitions, _public(REQUEST_DAYS, 256)),  # partitioned as the events
        Topic(TITLE_LAUNCHES, 1, _public(7, 2048)),
        Topic(TITLE_WITHDRAWALS, 1, _public(REQUEST_DAYS, 256)),
        Topic(ACTIVITY, 1, _kept(7)),  # the learner log: titles and activity in one total order
        Topic(TITLES, 1, compacted),
        Topic(MODEL_VERSIONS, 1, _kept(30)),  # a version's number is its record's offset
        Topic(DEAD_LETTERS, 1, _kept(DEAD_LETTER_DAYS, 2048)),
        Topic(OWNERS, 1, compacted),
    ]


def _kept(days: int, mib: int | None = None) -> dict[str, str]:
    """Retention in days, and in MiB per partition."""
    config = {"retention.ms": str(days * _DAY_MS)}
    return config if mib is None else {**config, "retention.bytes": str(mib * _MIB)}


def _public(days: int, mib: int) -> dict[str, str]:
    """A topic that producers fill: the broker sets the record times, which order its records with those of others."""
    return {**_kept(days, mib), "message.timestamp.type": "LogAppendTime"}
