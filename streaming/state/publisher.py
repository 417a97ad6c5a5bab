"""Whose lists are due, and what they become: the part of `publish` that knows neither Kafka nor Redis nor a clock.

It takes what happened (`act`, `launch`, `serve`) and gives out predictions a small slice at a time (`work`), so that
whatever comes next never waits long. First come those who acted, one recompute for all they did; then, within a budget
of viewers a second, those whose lists a new title may enter, and those whose lists an older version made, the most
recently active first; of the last only one in a slice while others who acted wait.

A launch is tried on the `asked` viewers whose query vectors fit it best (each vector against the title as the version
that made the vector sees it), and scored by the ranker as their lists were; it enters where it beats a list's end, and
nobody else is recomputed or written. A title without text fits nobody by its vector: it is tried on the viewers who
acted last. A list that an older version made does not compare: that viewer is recomputed.

A viewer's next moment is asked for in the stream's own time: the wall clock less the usual age of events, so that a
replay of old data is not read as twenty years of silence. Before the first version nothing is ranked.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median_low
from typing import Final

from model.recommender import RankedEvent, Recommender, TitleEncoder
from streaming.records import Activity, Forgotten, Title
from streaming.state.log_learner import title_metadata
from streaming.state.sharding import Shard
from streaming.state.title_cache import TitleCache
from streaming.state.user_cache import NONE, CachedUser, UserCache, insert
from streaming.stores.redis_lists import Erased, Item, Placed, Prediction, Withdrawn

ENCODERS: Final = 8  # versions whose view of new titles is kept
BUCKETS: Final = 65  # events by which the stream's own time is told


@dataclass(frozen=True)
class PublishSettings:
    """size: titles in a list, of which `kept` places are for fresh ones · users: in the cache · asked: viewers a launch
    is tried on, over all shares · budget: viewers a second recomputed for other reasons than that they acted · chunk,
    small: viewers in a slice who acted, and others."""

    size: int = 100
    kept: int = 5
    filter_seen: bool = True
    users: int = 50_000
    asked: int = 256
    budget: float = 200.0
    chunk: int = 32
    small: int = 16


class Publisher:
    """`number` is the version served, `recommender` that version at work; `share` are the viewers it is for."""

    def __init__(self, settings: PublishSettings | None = None, share: Shard | None = None) -> None:
        self.settings, self.share = settings or PublishSettings(), share or Shard()
        self._nobody: tuple[None, ...] = (None,) if self.share.is_primary else ()
        self.viewers = UserCache(self.settings.users)
        self.fallback = CachedUser(None)  # whoever has not been seen
        self.titles = TitleCache()
        self.number = NONE
        self.recommender: Recommender | None = None
        self.acted: OrderedDict[str, tuple[int, list[int]]] = OrderedDict()  # offset in the log, append times
        self.entering: OrderedDict[str | None, dict[str, Title]] = OrderedDict()
        self.refreshing: deque[str | None] = deque()
        self._encoders: dict[int, TitleEncoder] = {}
        self._left: dict[str, set[str | None]] = {}  # title -> those it has still to be tried on
        self._entered: Counter[str] = Counter()
        self._out: list[Item] = []
        self._ages: deque[int] = deque(maxlen=BUCKETS)  # ms between event and append time
        self._tokens, self._filled = self.settings.budget, 0.0

    def remember(self, activity: Activity) -> bool:
        """Take in what a user did, and compute nothing. False where it is old, or the user is of another share."""
        for event in activity.new[-1:]:
            self._ages.append(event.appended - activity.times[event.index])
        return self.share.owns(activity.user) and self.viewers.act(activity)

    def act(self, activity: Activity, offset: int) -> None:
        """A user acted; `offset` is the activity's in the log."""
        if self.remember(activity) and self.recommender is not None:
            appended = [event.appended for event in activity.new]
            self.acted.setdefault(activity.user, (offset, []))[1].extend(appended)

    def forget(self, asked: Forgotten) -> None:
        """A user is to be forgotten: what is cached goes, and Redis is told."""
        user = asked.user
        if not self.share.owns(user):
            if self.recommender is not None:
                self.recommender.erase_user(user)  # a version knows everybody
            return
        if self.viewers.forget(user, asked.offset):
            self.acted.pop(user, None)
            self._settle(user, {})
            if self.recommender is not None:
                self.recommender.erase_user(user)
        self._out.append(Erased(user, asked.offset))

    def launch(self, titles: Sequence[Title]) -> None:
        """Titles launched, changed or were withdrawn."""
        withdrawn = self.titles.withdrawn
        news = self.titles.take(titles)
        if self.titles.withdrawn != withdrawn and self.share.is_primary:
            self._out.append(Withdrawn(self.titles.withdrawn))
        if self.recommender is None or not news:
            return
        self.recommender.add([title_metadata(title) for title in news])
        for title in news:
            if not title.withdrawn:
                self._try(title)

    def serve(self, number: int, recommender: Recommender, ahead: Sequence[Title]) -> None:
        """Serve a version from now on; `ahead` are the titles it does not know. Everybody's lists are due."""
        self.titles.complete(recommender, ahead)
        if self.recommender is None and self.share.is_primary:
            self._out.append(Withdrawn(self.titles.withdrawn))  # whatever an earlier process left there
        self.number, self.recommender = number, recommender
        self.viewers.outdate()
        self.fallback.ranked = None
        cached = sorted(self.viewers.versions())[-ENCODERS:]
        self._encoders = {n: encoder for n, encoder in self._encoders.items() if n in cached}
        self._encoders[number] = recommender.encoder()
        self.refreshing = deque([*self._nobody, *self.viewers.recent_first()])

    def work(self, now: int) -> list[Item]:
        """Do a slice of what is due at `now` (wall clock, ms); what is to be written."""
        items, self._out = self._out, []
        if self.recommender is None:
            return items
        self._fill(now)
        acted = [self.acted.popitem(last=False) for _ in range(min(self.settings.chunk, len(self.acted)))]
        fresh = {user: tuple(appended) for user, (_, appended) in acted}
        items += self._rank(self._find(list(fresh)), now, "event", fresh)
        if 0 < self._need() <= self._tokens:
            items += self._enter(now) if self.entering else self._refresh(now)
        items += self._out
        self._out = []
        return items

    def wait(self, now: int) -> float | None:
        """Seconds until there is work; None: until something happens."""
        if self._out or self.acted:
            return 0.0
        self._fill(now)
        need = self._need()
        return max(0.0, (need - self._tokens) / self.settings.budget) if need and self.recommender else None

    def pending(self) -> int | None:
        """The log's offset of the oldest activity whose effect is not out yet."""
        return next(iter(self.acted.values()))[0] if self.acted else None

    def _need(self) -> int:
        """Viewers of the next slice. While some who acted wait, one is refreshed at a time: freshness comes first. A
        version that comes before all were refreshed begins anew with those who acted last."""
        if self.entering:
            return min(self.settings.small, len(self.entering))
        return min(1 if self.acted else self.settings.small, len(self.refreshing))

    def _fill(self, now: int) -> None:
        budget = self.settings.budget
        passed = max(0.0, now - self._filled) / 1000
        self._tokens, self._filled = min(max(budget, self.settings.small), self._tokens + passed * budget), now

    def _try(self, title: Title) -> None:
        """Choose whom a launch is tried on."""
        semantic, most = title_metadata(title).semantic, -(-self.settings.asked // self.share.workers)
        if len(semantic):
            nearest = self.viewers.nearest({n: e(semantic) for n, e in self._encoders.items()}, most)
        else:
            nearest = list(islice(self.viewers.recent_first(), most))
        for user in (*self._nobody, *nearest):
            self.entering.setdefault(user, {})[title.title] = title
        if left := {*self._nobody, *nearest}:
            self._left.setdefault(title.title, set()).update(left)
        elif title.title not in self._left:
            self._out.append(Placed(title.title, 0, *self.share))

    def _find(self, users: Sequence[str | None]) -> list[CachedUser]:
        """The viewers, without those who have left the cache."""
        found = [self.fallback if user is None else self.viewers.get(user) for user in users]
        for user, known in zip(users, found, strict=True):
            if known is None:
                self._settle(user, {})
        return [known for known in found if known is not None]

    def _rank(
        self, known: Sequence[CachedUser], now: int, cause: str, fresh: dict[str, tuple[int, ...]] | None = None
    ) -> list[Item]:
        """New lists."""
        if not known or self.recommender is None:
            return []
        viewers = [one.viewer(self.settings.filter_seen) for one in known]
        moment = now - (median_low(self._ages) if self._ages else 0)
        ranked = self.recommender.recommend(viewers, moment, self.settings.size, self.settings.kept)
        return [
            self._prediction(one, lists, cause, (fresh or {}).get(one.user or "", ()))
            for one, lists in zip(known, ranked, strict=True)
        ]

    def _prediction(
        self, known: CachedUser, ranked: RankedEvent, cause: str, fresh: tuple[int, ...] = ()
    ) -> Prediction:
        self.viewers.keep(known, ranked, self.number)
        entered = self._settle(known.user, ranked.titles)
        revision = (known.offset, self.number, self.titles.newest)
        facts = known.events, known.appended, cause, fresh, entered
        return Prediction(known.user, ranked.titles, self.number, revision, *facts)

    def _settle(self, user: str | None, lists: dict[int, list[str]]) -> tuple[tuple[str, int], ...]:
        """The launches that the user's lists were due for are settled; those that entered them."""
        tried = self.entering.pop(user, {})
        entered = [t for name, t in tried.items() if any(name in titles for titles in lists.values())]
        self._entered.update(title.title for title in entered)
        for name in tried:
            self._left[name].discard(user)
            if not self._left[name]:
                del self._left[name]
                self._out.append(Placed(name, self._entered.pop(name, 0), *self.share))
        return tuple((title.title, title.appended) for title in entered)

    def _enter(self, now: int) -> list[Item]:
        """Try launches on some of those they may suit."""
        due = (user for user in self.entering if user not in self.acted)  # the others are recomputed anyway
        users = list(islice(due, self.settings.small))
        self._tokens -= len(users)
        known = self._find(users)
        stale = [one for one in known if one.version != self.number]
        current = [one for one in known if one.version == self.number]
        return self._rank(stale, now, "launch") + self._insert(current)

    def _insert(self, known: Sequence[CachedUser]) -> list[Item]:
        """Put launches into lists of this version, where they belong."""
        if not known or self.recommender is None:
            return []
        tried = [[name for name in self.entering[one.user] if self._shown_to(one, name)] for one in known]
        ranked = [one.ranked for one in known if one.ranked is not None]
        viewers = [one.viewer(self.settings.filter_seen) for one in known]
        scores = self.recommender.score(tried, viewers, ranked)
        items: list[Item] = []
        for one, titles, before, score_HT in zip(known, tried, ranked, scores, strict=True):
            after = insert(before, titles, score_HT, self.settings.size, self.settings.kept)
            if after.titles == before.titles:
                self._settle(one.user, {})
            else:
                items.append(self._prediction(one, after, "launch"))
        return items

    def _shown_to(self, known: CachedUser, title: str) -> bool:
        return title not in self.titles.withdrawn and not (self.settings.filter_seen and title in known.seen)

    def _refresh(self, now: int) -> list[Item]:
        """Recompute some of those whose lists an older version made."""
        users: list[str | None] = []
        most = self._need()
        while self.refreshing and len(users) < most:
            user = self.refreshing.popleft()
            known = self.fallback if user is None else self.viewers.get(user)
            if known is not None and known.version != self.number:
                users.append(user)
        self._tokens -= len(users)
        return self._rank(self._find(users), now, "refresh")
