"""Users as a person can judge them: recent titles and the list in Redis, by title name."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from infra.data.datasets import Dataset
from infra.demo.screen import UserPortrait
from streaming.records import Launch
from streaming.stores.list_client import NAMESPACE, key, read

MAX_LISTED: Final = 10  # of the list
MAX_RECENT: Final = 10


def display_name(launch: Launch) -> str:
    """Name and year of a title."""
    name = launch.name or launch.title
    return f"{name} ({launch.year})" if launch.year and str(launch.year) not in name else name


class ListClient:
    """Reads lists as an application does: it knows the events it sent, so it picks the matching horizon."""

    def __init__(self, redis: Any, namespace: str = NAMESPACE) -> None:
        self.redis, self.namespace = redis, namespace
        self.missing_events: Counter[int] = Counter()  # number of lists by how many events of their user they lacked
        self._sent: Counter[str] = Counter()  # events by user

    def sent(self, user: str) -> None:
        """Count an event of this user."""
        self._sent[user] += 1

    def serve(self, user: str) -> list[str]:
        """Like `read`, and count how many events the list lacks."""
        self.missing_events[self._passed(user)] += 1
        return self.read(user)

    def read(self, user: str) -> list[str]:
        """The user's list for the horizon that has passed."""
        return read(self.redis, user, self._passed(user), self.namespace)

    def missing(self, users: Sequence[str]) -> list[int]:
        """How many events of each user the list lacks."""
        if not users:
            return []
        pipeline = self.redis.pipeline(transaction=False)
        for user in users:
            pipeline.hget(key(user, self.namespace), "events")
        return [max(0, self._sent[user] - int(n or 0)) for user, n in zip(users, pipeline.execute(), strict=True)]

    def sent_events(self, user: str) -> int:
        """Events of this user that were sent."""
        return self._sent[user]

    def _passed(self, user: str) -> int:
        return self.missing([user])[0]


class DemoUsers:
    """Portraits of users. Remembers the list of the last portrait, to mark new titles."""

    def __init__(self, client: ListClient, data: Dataset) -> None:
        self.client, self.data = client, data
        self.names = {launch.title: display_name(launch) for launch in data.launches}
        self._before: dict[str, set[str]] = {}

    def portrait(self, user: str) -> UserPortrait:
        """A user's recent titles that were sent, and the list in Redis."""
        listed = self.client.read(user)[:MAX_LISTED]
        before = self._before.get(user, set(listed))
        self._before = {user: set(listed)}
        shown = [(self.name(title), title not in before) for title in listed]
        return UserPortrait(user, [self.name(title) for title in self.recent_titles(user)], shown)

    def recent_titles(self, user: str) -> list[str]:
        """The user's recent titles that were sent, newest first."""
        rows = (self.data.user == self.data.users.index(user)).nonzero()[0][: self.events(user)][-MAX_RECENT:]
        return [self.data.titles[self.data.title[row]] for row in rows[::-1]]

    def events(self, user: str) -> int:
        """Number of the user's events that were sent."""
        return self.client.sent_events(user)

    def name(self, title: str) -> str:
        """Display name of a title; its id if it has no metadata."""
        return self.names.get(title, title)

    def most_active(self, first: int, until: int, most: int = 4) -> Sequence[str]:
        """The users with the most events in [first, until), and one new user if there is one."""
        rows = self.data.user[first:until]
        counts: Mapping[int, int] = {int(row): int((rows == row).sum()) for row in dict.fromkeys(rows.tolist())}
        old = set(self.data.user[:first].tolist())
        busiest = sorted((row for row in counts if self.events(self.data.users[row])), key=lambda row: -counts[row])
        newcomers = [row for row in busiest if row not in old][:1]
        chosen = [row for row in busiest if row not in newcomers][: most - len(newcomers)] + newcomers
        return [self.data.users[row] for row in chosen]
