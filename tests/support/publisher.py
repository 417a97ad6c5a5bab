"""Shared by tests."""

from collections.abc import Sequence

from model.actions import ACTIONS
from streaming.records import Activity, Launch, Title
from streaming.state.publisher import Publisher, PublishSettings
from tests.support.publish import activity, recommender, world

ROOMY = PublishSettings(size=20, budget=1e6)  # everything is done at once


PLAY, DISLIKE = ACTIONS["play"].code, ACTIONS["dislike"].code


SPACE = "Astronaut and comet: a starship leaves its orbit for a lunar colony; planet, galaxy, rocket, asteroid."


def ready(settings: PublishSettings = ROOMY, titles: Sequence[Title] | None = None) -> Publisher:
    """A publisher that remembers the world and serves its version; no list has been made yet."""
    publisher = Publisher(settings)
    publisher.titles.take(world().titles if titles is None else titles, live=False)
    for one in world().activities:
        publisher.remember(one)
    publisher.serve(0, recommender(), [])
    return publisher


def more(user: str, *titles: str, offset: int = 1000, action: int = PLAY) -> Activity:
    """The user goes on: new events after all that the world holds."""
    last = world().newest()[user]
    held = list(zip(last.titles, last.times, last.actions, strict=True))
    held += [(title, last.times[-1] + 1 + n, action) for n, title in enumerate(titles)]
    one = activity(user, held, offset, len(titles))
    return Activity(**{**{f: getattr(one, f) for f in one.__struct_fields__}, "count": last.count + len(titles)})


def new_title(name: str = "Space II", overview: str = SPACE, offset: int = 500) -> Title:
    launch = Launch(title=name.lower(), name=name, genres=["Space"] if overview else [], overview=overview)
    return world().title(launch, offset)


def unseen(user: str) -> list[str]:
    seen = {title for one in world().activities if one.user == user for title in one.titles}
    return [title.title for title in world().titles if title.title not in seen]
