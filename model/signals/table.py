"""The signal table: every input feature of the ranker, with its ablation group and its meaning.

There are two stages. The dense signals are computed for the considered titles: those that the user's events reach, and
the best by static, text and backbone scores (model/signals/candidates.py). A linear score over them selects the few
hundred candidates of the shortlist. All signals are filled for the shortlist only. Counts enter as logarithms or square
roots, so that one scale serves small and large catalogs.

A signal is declared once, as a member of the class of its kind. The member is the signal's index in the arrays of its
kind, also in compiled code. Column numbers, names, documentation and ablation groups follow from the classes.
"""

from enum import IntEnum
from typing import Final, NamedTuple, Self

POPULARITY, FEW_EVENTS, LIKING, TRANSITIONS = "popularity", "zero or one event", "liking", "transitions"
COOCCURRENCE, USER_KNN, TEXT, REPEATS = "co-occurrence", "user-kNN", "text", "repeats"
DATES, RELEASE, BACKBONE, ACTIVITY = "genres and years", "release date", "backbone", "user activity"


class _Kind(IntEnum):
    """Numbers its members from 0 in the order of their declaration, and keeps group and meaning of each."""

    group: str
    meaning: str

    def __new__(cls, group: str, meaning: str) -> Self:
        index = len(cls.__members__)
        member = int.__new__(cls, index)
        member._value_, member.group, member.meaning = index, group, meaning
        return member

    @property
    def label(self) -> str:
        """The signal's name in reports and checkpoints."""
        return self.name.lower().replace("_", " ")


class Static(_Kind):
    """Signals that are the same for all users: columns of `static_VF`. The first are the counters' half-lives."""

    POPULARITY_HOUR = POPULARITY, "log of the title's events, where an event counts half for each hour since"
    POPULARITY_DAY = POPULARITY, "log of the title's events with a half-life of a day"
    POPULARITY_WEEK = POPULARITY, "log of the title's events with a half-life of a week"
    POPULARITY_MONTH = POPULARITY, "log of the title's events with a half-life of a month"
    POPULARITY_YEAR = POPULARITY, "log of the title's events with a half-life of a year"
    POPULARITY_500_EVENTS = POPULARITY, "log of the title's events with a half-life of 500 events of the stream"
    POPULARITY_5000_EVENTS = POPULARITY, "log of the title's events with a half-life of 5,000 events of the stream"
    POPULARITY_TOTAL = POPULARITY, "log of all events so far"
    NO_EVENTS = FEW_EVENTS, "whether the title has no event"
    ONE_EVENT = FEW_EVENTS, "whether the title has one event"
    HOURS_SINCE_LAST_EVENT = POPULARITY, "log of the hours since the title's last event"
    MEAN_LIKING = LIKING, "mean liking of the title's events"


class Summed(_Kind):
    """Sums over pairs of titles and over other users' events: columns of `summed_PF`."""

    TRANSITION_LAST = TRANSITIONS, "how often the title followed the user's last title directly"
    TRANSITION_RECENT = TRANSITIONS, "how often the title followed the last five titles, as shares, weighted by recency"
    SESSION_COOCCURRENCE_RECENT = TRANSITIONS, "events of the title in sessions with the last ten titles"
    SESSION_COOCCURRENCE_COSINE = TRANSITIONS, "`session cooccurrence recent`, normalized by both titles' events"
    COOCCURRENCE_RECENT = COOCCURRENCE, "users who had both this title and one of the user's, weighted by recency"
    COOCCURRENCE_ALL = COOCCURRENCE, "`cooccurrence recent` without the weights"
    COOCCURRENCE_MAX = COOCCURRENCE, "the largest contribution to `cooccurrence all` from one of the user's titles"
    COOCCURRENCE_LIKED = COOCCURRENCE, "`cooccurrence all`, weighted by how much the user liked each of those titles"
    KNN_USERS = USER_KNN, "summed similarity of the users most like this one who had the title"
    KNN_SESSIONS = USER_KNN, "`knn users` for events close to one of the user's last titles"
    KNN_RIDGE = USER_KNN, "votes of the similar users by kernel ridge regression"
    NEIGHBOR_AFTER = USER_KNN, "other users' events after one of the user's titles, weighted by distance"
    NEIGHBOR_BEFORE = USER_KNN, "other users' events before one of the user's titles, weighted by distance"
    NEIGHBOR_RECENCY = (
        USER_KNN,
        "`neighbor after` and `neighbor before`, weighted by the recency of the shared event",
    )
    NEIGHBOR_SIMILARITY = USER_KNN, "`neighbor after` and `neighbor before`, weighted by the other user's similarity"
    NEIGHBOR_BREADTH = USER_KNN, "the number of the user's titles near which the title occurs"


class Matched(_Kind):
    """The match of each title with the user: rows of `matched_FP`."""

    REPEAT_RECENCY = (
        REPEATS,
        "the user's own events on the title, weighted by recency, where users return to titles",
    )
    REPEAT_COUNT = REPEATS, "the number of the user's own events on the title"
    TEXT_RECENT = TEXT, "cosine of the title's text with the mean text of the user's recent titles"
    TEXT_NEIGHBOR_COOCCURRENCE = TEXT, "mean of `cooccurrence recent` over the titles with the closest texts"
    GENRE_AFFINITY = DATES, "mean liking of the title's genres in the user's history"
    YEAR_PROXIMITY = DATES, "closeness of the release year to the mean year of the user's titles"
    YEAR_AFFINITY = DATES, "share of the user's titles with a release year close to the title's"
    ACTIVITY_BUCKET_POPULARITY = POPULARITY, "log of the events by users with about as many events as the user"
    BACKBONE = BACKBONE, "the backbone's score of the title for the query's horizon"


class Candidate(_Kind):
    """Signals that only the shortlist has: the columns after the dense ones."""

    TEXT_LAST = TEXT, "cosine of the title's text with that of the user's last title"
    TEXT_CLOSEST = TEXT, "largest cosine with one of the user's recent titles"
    TEXT_CLOSEST_THREE = TEXT, "mean of the three largest cosines"
    HAS_TEXT = TEXT, "whether the title has a text"
    TEXT_NEIGHBOR_SESSION_COOCCURRENCE = TEXT, "mean of `session cooccurrence cosine` over the titles with close texts"
    TEXT_NEIGHBOR_TRANSITION = TEXT, "mean of `transition recent` over the titles with close texts"
    TEXT_NEIGHBOR_USER_SIMILARITY = TEXT, "mean of `neighbor similarity` over the titles with close texts"
    TEXT_NEIGHBOR_KNN_RIDGE = TEXT, "mean of `knn ridge` over the titles with close texts"
    TEXT_NEIGHBOR_POPULARITY = TEXT, "mean of `popularity week` over the titles with close texts"
    YEAR_KNOWN = DATES, "whether the release year is known"
    YEAR_DIFFERENCE = DATES, "release year minus the mean year of the user's titles, in decades"
    YEAR_DISTANCE = DATES, "the absolute value of `year difference`"
    DECADES_OLD = DATES, "decades since the release year"
    RELEASE_DATE_KNOWN = RELEASE, "whether the release date is known"
    DAYS_SINCE_RELEASE = RELEASE, "log of the days since the release"
    UNRELEASED = RELEASE, "whether the release date is in the future"
    GENRE_AFFINITY_RECENT = DATES, "mean frequency of the title's genres in the user's last five titles"
    BACKBONE_MINUS_TOP = BACKBONE, "the backbone's score minus its best score in the shortlist"
    POPULARITY_DIFFERENCE = POPULARITY, "`popularity total` minus its mean over the user's titles"
    TITLE_USERS_SIMILARITY = USER_KNN, "similarity of the title's recent users to the user"
    TITLE_USERS_MAX = USER_KNN, "the largest similarity of the title's recent users to the user"
    USER_EVENTS = ACTIVITY, "log of the user's events so far"
    USER_IDLE_TIME = ACTIVITY, "log of the seconds since the user's last event"
    SESSION_EVENTS = ACTIVITY, "log of the user's events within the last hour"
    INTER_EVENT_TIME = ACTIVITY, "log of the mean seconds between the user's last ten events"
    USER_MEAN_LIKING = LIKING, "mean liking of the user's events"
    HORIZON = ACTIVITY, "log of the events that will have passed when the list is read"


DENSE_KINDS: Final = (Static, Summed, Matched)
KINDS: Final = (*DENSE_KINDS, Candidate)
STATIC_SIGNALS: Final = tuple(one.label for one in Static)
DENSE_SIGNALS: Final = tuple(one.label for kind in DENSE_KINDS for one in kind)
SIGNALS: Final = tuple(one.label for kind in KINDS for one in kind)
COLUMN: Final = {name: column for column, name in enumerate(SIGNALS)}
STATICS: Final = len(Static)
SUMS: Final = len(Summed)
MATCHES: Final = len(Matched)
DENSE: Final = STATICS + SUMS + MATCHES  # the first candidate signal's column


class SignalInfo(NamedTuple):
    """One row of the table."""

    name: str
    stage: str  # which titles have it: the considered titles, or the shortlist
    group: str
    meaning: str


def signal_infos() -> list[SignalInfo]:
    """The table in the order of the columns."""
    return [
        SignalInfo(one.label, "shortlist" if kind is Candidate else "considered", one.group, one.meaning)
        for kind in KINDS
        for one in kind
    ]
