"""Settings of the lists and of the work of `publish`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishSettings:
    """Settings of the lists and of the work that one batch may do."""

    list_size: int = 100  # titles in a list
    new_title_slots: int = 5  # of these, slots reserved for unseen titles
    filter_seen: bool = True  # whether lists leave out seen titles
    max_users: int = 50_000  # users in the cache
    max_titles: int = 200_000  # titles in the cache
    launch_fanout: int = 256  # users that a launch is tried on, over all workers
    refresh_budget: float = 200.0  # users per second that are recomputed without having acted
    event_batch: int = 32  # users per batch who acted
    refresh_batch: int = 16  # users per batch for launches or refreshes
