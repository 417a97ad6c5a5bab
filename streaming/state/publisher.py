"""Decides whose lists are due and computes them: the part of `publish` without Kafka, Redis or a clock.

The publisher takes events (`on_activity`, `on_erasure`, `on_launches`, `serve`) and returns writes in small batches
(`work`), so that the next event never waits long. Three queues feed a batch, in this order:

1. users who acted: one recompute covers all their events since the last one;
2. launches: users whose lists a new title may enter, within a budget of users per second;
3. refreshes: users whose lists come from an older version, within the same budget: the users with PROVEN_EVENTS events
   before the others, most recently active first. While users who acted are waiting, a batch refreshes only one user.

A launch is tried on the `launch_fanout` users whose query vectors fit it best. Each vector is compared with the title
vector of the model version that computed the query vector. The ranker scores the title as it scored the user's list,
and the title enters where it beats the end of the list. No other user is recomputed or written. A title without text
has no text embedding to compare: it is tried on the most recently active users. The scores of a list of an older
version cannot be compared with the title's score: such a list is outdated, and its user is recomputed.

`streaming.state.query_time` sets the query time of a list. Nothing is ranked before the first version. The events that
the served version was not trained on are counted in it first (`streaming.state.live_events`).
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Final

from model.recommender import RankedLists, Recommender, TitleEncoder
from streaming.records import Activity, Title, UserErasure
from streaming.state.live_events import LiveEvents
from streaming.state.publish_settings import PublishSettings
from streaming.state.query_time import QueryTime
from streaming.state.sharding import Shard
from streaming.state.title_cache import TitleCache
from streaming.state.title_metadata import title_metadata
from streaming.state.user_cache import NO_VERSION, CachedUser, UserCache, insert_titles
from streaming.stores.redis_lists import ErasedUser, LaunchCompleted, Prediction, RedisWrite, WithdrawnTitles

MAX_TITLE_ENCODERS: Final = 8  # older versions whose query vectors can still be compared with a new title
MAX_ERASURES: Final = 100_000  # newest erasures that are repeated in a version from before them


class Publisher:
    """Caches users and titles, and computes the lists of one shard's users with the served version."""

    def __init__(self, settings: PublishSettings | None = None, shard: Shard | None = None) -> None:
        self.settings, self.shard = settings or PublishSettings(), shard or Shard()
        self._default_key: tuple[None, ...] = (None,) if self.shard.is_primary else ()
        self.users = UserCache(self.settings.max_users)
        self.default_user = CachedUser(None)  # stands for all unknown users; its lists are the default lists
        self.titles = TitleCache(self.settings.max_titles)
        self.version = NO_VERSION  # the served version
        self.recommender: Recommender | None = None  # loaded from that version
        # The three queues. None stands for the default lists.
        self.event_queue: OrderedDict[str, tuple[int, list[int]]] = OrderedDict()  # user -> log offset, append times
        self.launch_queue: OrderedDict[str | None, dict[str, Title]] = OrderedDict()  # user -> titles to try
        self.refresh_queue: deque[str | None] = deque()
        self._title_encoders: dict[int, TitleEncoder] = {}  # by version
        self._untried: dict[str, set[str | None]] = {}  # title -> users it has not been tried on yet
        self._lists_entered: Counter[str] = Counter()  # by title, while it is being tried
        self._outbox: list[RedisWrite] = []  # writes for the next batch
        self._erasures: OrderedDict[str, int] = OrderedDict()  # user -> log offset of the last erasure
        self._query_time = QueryTime()
        self._live_events = LiveEvents()
        self._tokens, self._refilled_at = self.settings.refresh_budget, 0.0  # token bucket of the budget

    def update_cache(self, activity: Activity, offset: int) -> bool:
        """Update a user's history and compute nothing. Returns False for an old activity or another shard's user."""
        self._query_time.add(activity)
        self._live_events.add(activity, offset)  # a version counts the events of all shards
        return self.shard.owns(activity.user) and self.users.update(activity)

    def on_activity(self, activity: Activity, offset: int) -> None:
        """A user acted; `offset` is the activity's offset in the learner log."""
        if self.update_cache(activity, offset) and self.recommender is not None:
            appended = [event.appended for event in activity.new]
            self.event_queue.setdefault(activity.user, (offset, []))[1].extend(appended)

    def on_erasure(self, erasure: UserErasure, offset: int) -> None:
        """Erase a user from the caches and queues, and write an erasure marker.

        `offset` is its offset in the learner log. If the user has later events, an activity with them follows.
        """
        user = erasure.user
        self._erasures.pop(user, None)
        self._erasures[user] = offset
        if len(self._erasures) > MAX_ERASURES:
            self._erasures.popitem(last=False)
        self._live_events.erase(user, offset)
        if not self.shard.owns(user):
            if self.recommender is not None:
                self.recommender.erase_user(user)  # a version contains the users of all shards
            return
        self.users.erase(user)
        self.event_queue.pop(user, None)
        self._finish_launches(user, {})
        if self.recommender is not None:
            self.recommender.erase_user(user)
        self._outbox.append(ErasedUser(user, erasure.appended))

    def on_launches(self, titles: Sequence[Title]) -> None:
        """Titles were launched, changed or withdrawn."""
        withdrawn = self.titles.withdrawn
        changed = self.titles.update(titles)
        if self.titles.withdrawn != withdrawn and self.shard.is_primary:
            self._outbox.append(self._withdrawn_titles())
        if self.recommender is None or not changed:
            return
        self.recommender.update_titles([title_metadata(title, self.recommender.text_space) for title in changed])
        for title in changed:
            if not title.withdrawn:
                self._queue_launch(title)

    def serve(
        self,
        version: int,
        recommender: Recommender,
        newer: Sequence[Title],
        position: int = 0,
        is_rollback: bool = False,
    ) -> None:
        """Serve a version from now on, and queue all users for a refresh.

        It was trained on the learner log before `position`, and does not contain the titles in `newer`. While a
        rollback is active it counts no later events, because these may have caused it.
        """
        self.titles.add_missing(recommender, newer)
        for user in [user for user, offset in self._erasures.items() if offset >= position]:
            recommender.erase_user(user)
        if self.recommender is None and self.shard.is_primary:
            self._outbox.append(self._withdrawn_titles())  # replaces the set of an earlier process
        self.version, self.recommender = version, recommender
        self._live_events.serve(position, counts_later=not is_rollback)
        self.users.drop_lists()
        self.default_user.ranked = None
        cached = sorted(self.users.query_versions())[-MAX_TITLE_ENCODERS:]
        self._title_encoders = {n: encoder for n, encoder in self._title_encoders.items() if n in cached}
        self._title_encoders[version] = recommender.title_encoder()
        # An unfinished refresh starts over, so that the users who acted last come first.
        self.refresh_queue = deque([*self._default_key, *self.users.most_recent_first()])

    def work(self, now: int) -> list[RedisWrite]:
        """Do one batch of the work due at `now` (wall clock, ms) and return the writes."""
        writes, self._outbox = self._outbox, []
        if self.recommender is None:
            return writes
        self._refill_budget(now)
        if updates := self._live_events.take():
            self.recommender.count_events(updates)
        acted = [
            self.event_queue.popitem(last=False) for _ in range(min(self.settings.event_batch, len(self.event_queue)))
        ]
        new_events = {user: tuple(appended) for user, (_, appended) in acted}
        writes += self._recommend(self._lookup(list(new_events)), now, "event", new_events)
        if 0 < self._background_batch() <= self._tokens:
            writes += self._work_on_launches(now) if self.launch_queue else self._work_on_refreshes(now)
        writes += self._outbox
        self._outbox = []
        return writes

    def seconds_until_work(self, now: int) -> float | None:
        """Seconds until there is work, or None if there is none until the next event."""
        if self._outbox or self.event_queue or (self.recommender is not None and self._live_events.uncounted):
            return 0.0
        self._refill_budget(now)
        users = self._background_batch()
        return max(0.0, (users - self._tokens) / self.settings.refresh_budget) if users and self.recommender else None

    def pending_offset(self) -> int | None:
        """The log offset of the oldest activity whose effect has not been returned yet, or None."""
        return next(iter(self.event_queue.values()))[0] if self.event_queue else None

    def _background_batch(self) -> int:
        """Users in the next batch of launches or refreshes. Waiting events allow one refresh: they come first."""
        if self.launch_queue:
            return min(self.settings.refresh_batch, len(self.launch_queue))
        return min(1 if self.event_queue else self.settings.refresh_batch, len(self.refresh_queue))

    def _refill_budget(self, now: int) -> None:
        budget = self.settings.refresh_budget
        passed = max(0.0, now - self._refilled_at) / 1000
        max_tokens = max(budget, self.settings.refresh_batch)
        self._tokens, self._refilled_at = min(max_tokens, self._tokens + passed * budget), now

    def _withdrawn_titles(self) -> WithdrawnTitles:
        return WithdrawnTitles(self.titles.withdrawn, self.titles.newest_stamp)

    def _queue_launch(self, title: Title) -> None:
        """Choose the users that a launch is tried on."""
        limit = -(-self.settings.launch_fanout // self.shard.workers)
        metadata = {n: title_metadata(title, encode.text_space) for n, encode in self._title_encoders.items()}
        vectors = {n: self._title_encoders[n](one.semantic) for n, one in metadata.items() if len(one.semantic)}
        users = self.users.nearest(vectors, limit) if vectors else list(islice(self.users.most_recent_first(), limit))
        for user in (*self._default_key, *users):
            self.launch_queue.setdefault(user, {})[title.title] = title
        if untried := {*self._default_key, *users}:
            self._untried.setdefault(title.title, set()).update(untried)
        elif title.title not in self._untried:
            self._outbox.append(LaunchCompleted(title.title, 0, *self.shard))

    def _lookup(self, users: Sequence[str | None]) -> list[CachedUser]:
        """The cached users. Users who were evicted are left out, and their queued launches end."""
        found = [self.default_user if user is None else self.users.get(user) for user in users]
        for user, cached in zip(users, found, strict=True):
            if cached is None:
                self._finish_launches(user, {})
        return [cached for cached in found if cached is not None]

    def _recommend(
        self,
        users: Sequence[CachedUser],
        now: int,
        cause: str,
        new_events: Mapping[str, tuple[int, ...]] | None = None,
    ) -> list[RedisWrite]:
        """Compute new lists; `new_events` are the append times of each user's events since the last lists."""
        if not users or self.recommender is None:
            return []
        inputs = [user.ranking_input(self.settings.filter_seen) for user in users]
        query_times = [self._query_time.of(user, now) for user in users]
        ranked = self.recommender.recommend(inputs, query_times, self.settings.list_size, self.settings.new_title_slots)
        return [
            self._prediction(user, lists, cause, (new_events or {}).get(user.user or "", ()))
            for user, lists in zip(users, ranked, strict=True)
        ]

    def _prediction(
        self, cached: CachedUser, ranked: RankedLists, cause: str, new_events: tuple[int, ...] = ()
    ) -> Prediction:
        """Store a user's lists in the cache and return the write."""
        self.users.store_lists(cached, ranked, self.version)
        entered = self._finish_launches(cached.user, ranked.titles)
        revision = (cached.appended, cached.offset, self.version, self.titles.newest_stamp)
        details = cached.events, cached.appended, cause, new_events, entered
        return Prediction(cached.user, ranked.titles, self.version, revision, *details)

    def _finish_launches(self, user: str | None, lists: Mapping[int, list[str]]) -> tuple[tuple[str, int], ...]:
        """End the user's queued launches. Returns the titles that are in `lists`, with their append times."""
        tried = self.launch_queue.pop(user, {})
        entered = [t for name, t in tried.items() if any(name in titles for titles in lists.values())]
        self._lists_entered.update(title.title for title in entered)
        for name in tried:
            self._untried[name].discard(user)
            if not self._untried[name]:
                del self._untried[name]
                self._outbox.append(LaunchCompleted(name, self._lists_entered.pop(name, 0), *self.shard))
        return tuple((title.title, title.appended) for title in entered)

    def _work_on_launches(self, now: int) -> list[RedisWrite]:
        """Try queued launches on the next users. Users with lists of an older version are recomputed."""
        due = (user for user in self.launch_queue if user not in self.event_queue)  # the others are recomputed anyway
        users = list(islice(due, self.settings.refresh_batch))
        self._tokens -= len(users)
        cached = self._lookup(users)
        outdated = [user for user in cached if user.version != self.version]
        current = [user for user in cached if user.version == self.version]
        return self._recommend(outdated, now, "launch") + self._insert_launches(current)

    def _insert_launches(self, users: Sequence[CachedUser]) -> list[RedisWrite]:
        """Score queued launches for users with current lists, and insert them where they rank high enough."""
        if not users or self.recommender is None:
            return []
        tried = [[name for name in self.launch_queue[one.user] if self._may_recommend(one, name)] for one in users]
        ranked = [user.ranked for user in users if user.ranked is not None]
        inputs = [user.ranking_input(self.settings.filter_seen) for user in users]
        scores = self.recommender.score(tried, inputs, ranked)
        size, slots = self.settings.list_size, self.settings.new_title_slots
        select = partial(self.recommender.select, size=size, new_title_slots=slots)
        writes: list[RedisWrite] = []
        for user, titles, before, score_HT in zip(users, tried, ranked, scores, strict=True):
            after = insert_titles(before, titles, score_HT, select)
            if after.titles == before.titles:
                self._finish_launches(user.user, {})
            else:
                writes.append(self._prediction(user, after, "launch"))
        return writes

    def _may_recommend(self, user: CachedUser, title: str) -> bool:
        return title not in self.titles.withdrawn and not (self.settings.filter_seen and title in user.seen)

    def _work_on_refreshes(self, now: int) -> list[RedisWrite]:
        """Recompute the next users whose lists come from an older version."""
        users: list[str | None] = []
        limit = self._background_batch()
        while self.refresh_queue and len(users) < limit:
            user = self.refresh_queue.popleft()
            cached = self.default_user if user is None else self.users.get(user)
            if cached is not None and cached.version != self.version:
                users.append(user)
        self._tokens -= len(users)
        return self._recommend(self._lookup(users), now, "refresh")
