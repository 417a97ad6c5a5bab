"""A publisher that serves the small trained version, and new records for it."""

from collections.abc import Sequence

from model.actions import ACTIONS
from streaming.records import Activity, Launch, Title
from streaming.state.publish_settings import PublishSettings
from streaming.state.publisher import Publisher
from tests.support.publish import activity, recommender, world

UNLIMITED = PublishSettings(list_size=20, refresh_budget=1e6)  # all work is due at once
PLAY, DISLIKE = ACTIONS["play"].code, ACTIONS["dislike"].code
SPACE = "Astronaut and comet: a starship leaves its orbit for a lunar colony; planet, galaxy, rocket, asteroid."


def serving_publisher(settings: PublishSettings = UNLIMITED, titles: Sequence[Title] | None = None) -> Publisher:
    """A publisher that has cached the world and serves its version; no list has been computed yet."""
    publisher = Publisher(settings)
    publisher.titles.update(world().titles if titles is None else titles, at_startup=True)
    for one in world().activities:
        publisher.update_cache(one, 0)
    publisher.serve(0, recommender(), [], position=1)
    return publisher


def next_activity(user: str, *titles: str, offset: int = 1000, action: int = PLAY) -> Activity:
    """A user's activity with new events after those of the world."""
    last = world().newest()[user]
    history = list(zip(last.titles, last.times, last.actions, strict=True))
    history += [(title, last.times[-1] + 1 + n, action) for n, title in enumerate(titles)]
    one = activity(user, history, offset, len(titles))
    return Activity(**{**{f: getattr(one, f) for f in one.__struct_fields__}, "count": last.count + len(titles)})


def new_title(name: str = "Space II", overview: str = SPACE, offset: int = 500) -> Title:
    """A title that the world does not contain; it has no text if `name` and `overview` are empty."""
    launch = Launch(title=name.lower(), name=name, genres=["Space"] if overview else [], overview=overview)
    return world().title(launch, offset)


def unseen_titles(user: str) -> list[str]:
    """The titles of the world that a user has no event with."""
    seen = {title for one in world().activities if one.user == user for title in one.titles}
    return [title.title for title in world().titles if title.title not in seen]
