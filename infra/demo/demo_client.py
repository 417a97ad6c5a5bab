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

    def _passed(self, user: str) -> int:
        """Events of the user that the list lacks."""
        return max(0, self._sent[user] - int(self.redis.hget(key(user, self.namespace), "events") or 0))


class DemoUsers:
    """Portraits of users. Remembers the list of the last portrait, to mark new titles."""

    def __init__(self, client: ListClient, data: Dataset) -> None:
        self.client, self.data = client, data
        self.names = {launch.title: display_name(launch) for launch in data.launches}
        self._before: dict[str, set[str]] = {}

    def portrait(self, user: str, until: int) -> UserPortrait:
        """A user's recent titles before the event of index `until`, and the list in Redis."""
        listed = self.client.read(user)[:MAX_LISTED]
        before = self._before.get(user, set(listed))
        self._before = {user: set(listed)}
        shown = [(self.name(title), title not in before) for title in listed]
        return UserPortrait(user, [self.name(title) for title in self.recent_titles(user, until)], shown)

    def recent_titles(self, user: str, until: int) -> list[str]:
        """The user's recent titles before the event of index `until`, newest first."""
        rows = (self.data.user[:until] == self.data.users.index(user)).nonzero()[0][-MAX_RECENT:]
        return [self.data.titles[self.data.title[row]] for row in rows[::-1]]

    def events(self, user: str, until: int) -> int:
        """Number of the user's events before the event of index `until`."""
        return int((self.data.user[:until] == self.data.users.index(user)).sum())

    def name(self, title: str) -> str:
        """Display name of a title; its id if it has no metadata."""
        return self.names.get(title, title)

    def most_active(self, first: int, until: int, most: int = 4) -> Sequence[str]:
        """The users with the most events in [first, until), and one new user if there is one."""
        rows = self.data.user[first:until]
        counts: Mapping[int, int] = {int(row): int((rows == row).sum()) for row in dict.fromkeys(rows.tolist())}
        old = set(self.data.user[:first].tolist())
        busiest = sorted(counts, key=lambda row: -counts[row])
        newcomers = [row for row in busiest if row not in old][:1]
        chosen = [row for row in busiest if row not in newcomers][: most - len(newcomers)] + newcomers
        return [self.data.users[row] for row in chosen]
