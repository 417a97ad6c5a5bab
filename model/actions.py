"""What an action says: the one table that learner, evaluation and documentation share.

`weight` is what the event counts as a target: 0 is context only (it enters the history, is neither ranked nor learned
as a target, and does not make the title seen). `liking` is how much it tells of taste when it lies in the history.
"""

from typing import Final, NamedTuple


class Meaning(NamedTuple):
    """code: in the log, fixed for life · weight: as a target · liking: as a sign of taste."""

    code: int
    weight: float
    liking: float


ACTIONS: Final[dict[str, Meaning]] = {
    "impression": Meaning(1, 0.0, 0.0),
    "click": Meaning(2, 1.0, 1.0),
    "play": Meaning(3, 1.0, 1.0),
    "finish": Meaning(4, 1.0, 1.5),
    "like": Meaning(5, 1.0, 1.5),
    "dislike": Meaning(6, 0.0, -0.5),
    "purchase": Meaning(7, 1.0, 1.5),
    "rated low": Meaning(8, 1.0, -0.2),  # below 3: still what the viewer chose to watch next
    "rated fair": Meaning(9, 1.0, 0.7),  # 3 to below 4
    "rated high": Meaning(10, 1.0, 1.5),  # 4 and more
}
WEIGHTS: Final = (0.0, *(meaning.weight for meaning in ACTIONS.values()))  # by code; 0 is no action
LIKING: Final = (0.0, *(meaning.liking for meaning in ACTIONS.values()))


def rated(rating: float) -> str:
    """The action that a rating of 0 to 5 stands for."""
    return "rated low" if rating < 3 else "rated fair" if rating < 4 else "rated high"
