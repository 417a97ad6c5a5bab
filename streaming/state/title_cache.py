"""The titles that `publish` knows, and which of them a version does not: those must be added to it before it serves."""

from collections.abc import Iterable, Sequence
from typing import Final

from model.recommender import Recommender
from streaming.records import Title
from streaming.state.log_learner import title_metadata

BEFORE: Final = -1  # an offset before the log's first


class TitleCache:
    """The newest of each title; `newest` is the offset of the newest launch, `withdrawn` those that are."""

    def __init__(self) -> None:
        self.known: dict[str, Title] = {}
        self.withdrawn: frozenset[str] = frozenset()
        self.newest = 0
        self._logged: dict[str, tuple[int, int]] = {}  # title -> stamp, offset in the learner's log
        self._live: set[str] = set()  # titles that came since the start

    def take(self, titles: Iterable[Title], live: bool = True) -> list[Title]:
        """Take titles in; those that were news. `live`: the log will tell of them, if it has not yet."""
        news = {}
        for title in titles:
            known = self.known.get(title.title)
            if known is None or title.stamp > known.stamp:
                self.known[title.title] = news[title.title] = title
                self.newest = max(self.newest, title.offset)
        if live:
            self._live |= news.keys()
        if gone := {name for name, title in news.items() if title.withdrawn} | (self.withdrawn & news.keys()):
            self.withdrawn = (self.withdrawn - news.keys()) | {name for name in gone if news[name].withdrawn}
        return list(news.values())

    def log(self, title: Title, offset: int) -> None:
        """A title's place in the learner's log tells which versions know it."""
        self._logged[title.title] = (title.stamp, offset)

    def ahead(self, position: int) -> list[Title]:
        """Titles that a version made of the log before `position` does not know as they are now."""
        return [title for title in self.known.values() if self._is_ahead(title, position)]

    def complete(self, recommender: Recommender, ahead: Sequence[Title]) -> None:
        """Add to a version what is ahead of it, and what it lacks for any other reason, the newest first."""
        news = {title.title for title in ahead}
        odd = [t for t in self.known.values() if recommender.known(t.title) == t.withdrawn and t.title not in news]
        odd.sort(key=lambda title: -title.stamp)
        recommender.add([title_metadata(title) for title in (*ahead, *odd[: recommender.room()])])

    def _is_ahead(self, title: Title, position: int) -> bool:
        stamp, offset = self._logged.get(title.title, (0, BEFORE))
        return offset >= position if stamp == title.stamp else title.title in self._live
