"""A panel of the multitask experiment with a given interval."""

from typing import Any

from infra.experiments.multitask import ONLY_SUFFIX, SHARED
from infra.experiments.task_evaluators import OVERALL, USER
from model.sequence.tasks import GENRE


def gain_panel(low: float, high: float, users: int) -> dict[str, Any]:
    """A panel in which sharing has the same gain over the dedicated backbone and over every baseline."""
    gain = {"mean": (low + high) / 2, "low": low, "high": high, "events": 99, "users": users}
    only = GENRE + ONLY_SUFFIX
    gains = {name: {"all": gain, "new_titles": None, "new_users": gain} for name in (only, USER, OVERALL)}
    values = {SHARED: {"all": 0.6}, USER: {"all": 0.5}, OVERALL: {"all": 0.4}}
    return {"dedicated": only, "metric": "MRR", "values": values, "gain": gains}
