"""Viewers by what they watched and what lies in Redis for them, in names: what a person can judge."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from infra.data.datasets import DataSet
from infra.demo.screen import UserPortrait
from streaming.records import Launch
from streaming.stores.redis_lists import key, read

LISTED: Final = 10  # titles shown
WATCHED: Final = 10


def named(launch: Launch) -> str:
    """A title as people know it."""
    name = launch.name or launch.title
    return f"{name} ({launch.year})" if launch.year and str(launch.year) not in name else name


class ListClient:
    """Reads lists as an application does: it knows what it sent, so it takes the list of the delay that has passed."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self.behind: Counter[int] = (
            Counter()
        )  # how often a list that was read did not know so many events of its viewer
        self._sent: Counter[str] = Counter()  # events by user

    def sent(self, user: str) -> None:
        """Take note of an event of this user."""
        self._sent[user] += 1

    def serve(self, user: str) -> list[str]:
        """The same as `read`, noting how far the list is behind."""
        self.behind[self._passed(user)] += 1
        return self.read(user)

    def read(self, user: str) -> list[str]:
        """What the user is shown now."""
        return read(self.redis, user, self._passed(user))

    def _passed(self, user: str) -> int:
        """Events that the user's list does not know."""
        return max(0, self._sent[user] - int(self.redis.hget(key(user), "events") or 0))


class DemoUsers:
    """Looks viewers up, and remembers what was on each one's list at the last look."""

    def __init__(self, client: ListClient, data: DataSet) -> None:
        self.client, self.data = client, data
        self.names = {launch.title: named(launch) for launch in data.launches}
        self._before: dict[str, set[str]] = {}

    def look(self, user: str, until: int) -> UserPortrait:
        """A viewer's last titles before the event of index `until`, and the list that lies in Redis now."""
        listed = self.client.read(user)[:LISTED]
        before = self._before.get(user, set(listed))
        self._before = {user: set(listed)}
        shown = [(self.name(title), title not in before) for title in listed]
        return UserPortrait(user, [self.name(title) for title in self.watched(user, until)], shown)

    def watched(self, user: str, until: int) -> list[str]:
        """The viewer's last titles before the event of index `until`, newest first."""
        rows = (self.data.user[:until] == self.data.users.index(user)).nonzero()[0][-WATCHED:]
        return [self.data.titles[self.data.title[row]] for row in rows[::-1]]

    def events(self, user: str, until: int) -> int:
        """How many events of the viewer lie before the one of index `until`."""
        return int((self.data.user[:until] == self.data.users.index(user)).sum())

    def name(self, title: str) -> str:
        """A title's name, or its id where nothing is known of it."""
        return self.names.get(title, title)

    def lively(self, first: int, until: int, most: int = 4) -> Sequence[str]:
        """The users with the most events in [first, until), and one who was new then, where there is one."""
        rows = self.data.user[first:until]
        counts: Mapping[int, int] = {int(row): int((rows == row).sum()) for row in dict.fromkeys(rows.tolist())}
        old = set(self.data.user[:first].tolist())
        busiest = sorted(counts, key=lambda row: -counts[row])
        newcomers = [row for row in busiest if row not in old][:1]
        chosen = [row for row in busiest if row not in newcomers][: most - len(newcomers)] + newcomers
        return [self.data.users[row] for row in chosen]
