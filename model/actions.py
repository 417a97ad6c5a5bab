"""The table of actions, shared by the learner, the evaluation and the documentation.

The weight of an action is its weight as a target. An event of weight 0 is context only: it enters the history, but it
is neither ranked nor learned as a target, it does not mark the title as seen, and the counts of events of a title or a
user leave it out. The liking of an action is the preference that the event expresses when it is in the history. Weights
and likings are set by hand and not measured.
"""

from typing import Final, NamedTuple


class ActionSpec(NamedTuple):
    """The code and weights of one action."""

    code: int  # in the log; must never change
    weight: float  # as a target
    liking: float  # sign and strength of the preference that it expresses


ACTIONS: Final[dict[str, ActionSpec]] = {
    "impression": ActionSpec(1, 0.0, 0.0),
    "click": ActionSpec(2, 1.0, 1.0),
    "play": ActionSpec(3, 1.0, 1.0),
    "finish": ActionSpec(4, 1.0, 1.5),
    "like": ActionSpec(5, 1.0, 1.5),
    "dislike": ActionSpec(6, 0.0, -0.5),
    "purchase": ActionSpec(7, 1.0, 1.5),
    "rated low": ActionSpec(8, 1.0, -0.2),  # below 3; the user still chose to watch the title
    "rated fair": ActionSpec(9, 1.0, 0.7),  # 3 to below 4
    "rated high": ActionSpec(10, 1.0, 1.5),  # 4 and above
}
TARGET_WEIGHTS: Final = (0.0, *(action.weight for action in ACTIONS.values()))  # by code; code 0 is no action
LIKING: Final = (0.0, *(action.liking for action in ACTIONS.values()))  # by code


def rating_action(rating: float) -> str:
    """The action of an event with a rating of 0 to 5."""
    return "rated low" if rating < 3 else "rated fair" if rating < 4 else "rated high"
