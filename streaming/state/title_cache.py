"""The titles that `publish` knows, and which of them a model version does not contain yet.

A model version contains the titles of the learner log up to the version's log position, each as it was there. Titles
launch, change and are withdrawn all the time, so a version is always some seconds or minutes old when it is loaded.
Before `publish` serves it, the titles that changed after its position must be added, otherwise new titles would
disappear from the lists and withdrawn titles would return with each new version.

Each change arrives on two topics, in no common order: on `titles`, and in the learner log (topic `activity`), whose
offsets can be compared with a version's position. The cache joins both by the title's stamp. A change with a known log
offset is compared with the position. A change without one is newer than every version if it arrived after startup, and
assumed to be contained if it was read at startup.

The cache holds at most as many titles as a version. Withdrawn titles are evicted first, then the ones that
have not changed for the longest time.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from prometheus_client import Counter

from model.recommender import Recommender
from model.state.segmented_cache import SegmentedCache
from streaming.records import Title
from streaming.state.title_metadata import title_metadata

LOGGED_PER_TITLE: Final = 2  # log offsets that are kept, relative to the capacity of the cache
NOT_LOGGED: Final = (0, -1)  # stamp and offset of a title that was not read in the learner log

TITLE_EVICTIONS: Final = Counter("premiere_publish_title_evictions_total", "Titles evicted from the cache of publish.")


class TitleCache:
    """The newest record of each title, of at most `max_titles`."""

    def __init__(self, max_titles: int = 200_000) -> None:
        # Withdrawn titles are on probation, all others are proven.
        self.titles: SegmentedCache[Title] = SegmentedCache(max_titles, max_proven=max_titles)
        self.withdrawn: frozenset[str] = frozenset()  # ids of the titles that are withdrawn now
        self.newest_stamp = 0  # highest stamp of all titles
        # title -> stamp and offset of its last record in the learner log, which may be read before that of `titles`
        self._logged: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._changed_since_start: set[str] = set()

    def update(self, titles: Iterable[Title], at_startup: bool = False) -> list[Title]:
        """Store titles and return those that changed. Records read `at_startup` may already be in every version."""
        changed = {}
        for title in titles:
            cached = self.titles.get(title.title)
            if cached is None or title.stamp > cached.stamp:
                changed[title.title] = title
                self.titles.put(title.title, title, is_proven=not title.withdrawn)
                self.newest_stamp = max(self.newest_stamp, title.stamp)
        if not at_startup:
            self._changed_since_start |= changed.keys()
        was_withdrawn = self.withdrawn & changed.keys()
        if withdrawn := {name for name, title in changed.items() if title.withdrawn} | was_withdrawn:
            self.withdrawn = (self.withdrawn - changed.keys()) | {name for name in withdrawn if changed[name].withdrawn}
        self._evict()
        return list(changed.values())

    def set_log_offset(self, title: Title, offset: int) -> None:
        """Note where the learner log contains this record of a title; an older record that is repeated is ignored."""
        if title.stamp >= self._logged.get(title.title, NOT_LOGGED)[0]:
            self._logged[title.title] = (title.stamp, offset)
            if len(self._logged) > LOGGED_PER_TITLE * self.titles.capacity:
                self._logged.popitem(last=False)

    def newer_than(self, position: int) -> list[Title]:
        """The titles whose newest record is not in a version that was trained on the learner log before `position`."""
        return [title for title in self.titles.values() if self._is_newer(title, position)]

    def add_missing(self, recommender: Recommender, newer: Sequence[Title]) -> None:
        """Add the titles in `newer` to a version, then all others that the version lacks or wrongly offers.

        The others differ where the learner evicted a title or never read its record. Of the added titles the newest
        come first, as many as the version has capacity for; a withdrawal needs none.
        """
        newer_ids = {title.title for title in newer}
        others = [title for title in self.titles.values() if title.title not in newer_ids]
        offered = [title for title in others if title.withdrawn and recommender.is_candidate(title.title)]
        lacking = [title for title in others if not title.withdrawn and not recommender.is_candidate(title.title)]
        lacking.sort(key=lambda title: -title.stamp)
        changes = (*newer, *offered, *lacking[: recommender.free_capacity()])
        recommender.update_titles([title_metadata(title, recommender.text_space) for title in changes])

    def _evict(self) -> None:
        evicted = set()
        while len(self.titles) > self.titles.capacity:
            evicted.add(self.titles.pop_oldest()[0])
        if evicted:
            TITLE_EVICTIONS.inc(len(evicted))
            self.withdrawn -= evicted
            self._changed_since_start -= evicted
            for name in evicted:
                self._logged.pop(name, None)

    def _is_newer(self, title: Title, position: int) -> bool:
        stamp, offset = self._logged.get(title.title, NOT_LOGGED)
        return offset >= position if stamp == title.stamp else title.title in self._changed_since_start
