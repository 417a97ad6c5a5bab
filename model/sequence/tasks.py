"""Further tasks on the backbone that predicts the next title: each is a target, and a head of a few lines.

    action   what does the viewer do with the title that comes?   p(action | history, title)
    genre    of which genre is the title that comes?              p(genre | history)

Both are asked of the token that the next title is predicted from. The loss is a cross-entropy whose target is spread
evenly over the classes that are true (a title has several genres); where none is, there is no loss. The model as it
ships has no further task (`NetworkSettings.tasks`): no weight is drawn for one, and nothing is computed.
Source: arXiv 2605.23312, whose backbone serves three tasks; what its heads are was not at hand.

N rows · D width · K classes · G genres of a title
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from model.actions import LIKING, WEIGHTS
from model.state.catalog import CODES

SCALE: Final = 10.0  # of logits: the optimiser moves each weight by as much, and there are few steps
LIKED: Final = torch.tensor([liking >= 1.5 for liking in LIKING])  # by code: finished, liked, bought, rated high


@dataclass(frozen=True)
class Task:
    """classes · titled: whether the head reads the title that comes, too · truth: from action_N and genres_NG (-1:
    none), which classes are true of each row, bool [N, K]."""

    classes: int
    titled: bool
    truth: Callable[[Tensor, Tensor], Tensor]


def _action(action_N: Tensor, _genres_NG: Tensor) -> Tensor:
    return one_hot(action_N, len(WEIGHTS)).bool()


def _genre(_action_N: Tensor, genres_NG: Tensor) -> Tensor:
    among = torch.zeros(len(genres_NG), 1 + CODES, dtype=torch.bool)  # the first: no genre
    return among.scatter_(1, genres_NG.long() + 1, True)[:, 1:]


ACTION, GENRE = "action", "genre"
TASKS: Final = {ACTION: Task(len(WEIGHTS), True, _action), GENRE: Task(CODES, False, _genre)}


class Head(nn.Module):
    """Logits of a task's classes. Of a title it reads how it meets the viewer, beside each for itself."""

    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        self.task = task
        self.classes = nn.Linear(3 * width if task.titled else width, task.classes)
        nn.init.zeros_(self.classes.weight)
        nn.init.zeros_(self.classes.bias)

    def forward(self, hidden_ND: Tensor, title_ND: Tensor) -> Tensor:
        """logit_NK; `title_ND` are tower vectors."""
        read = torch.cat([hidden_ND, title_ND, hidden_ND * title_ND], 1) if self.task.titled else hidden_ND
        logit_NK: Tensor = self.classes(read) * SCALE
        return logit_NK

    def losses(self, hidden_ND: Tensor, title_ND: Tensor, action_N: Tensor, genres_NG: Tensor) -> Tensor:
        """loss_N in nats."""
        truth_NK = self.task.truth(action_N, genres_NG).float()
        share_NK = truth_NK / truth_NK.sum(1, keepdim=True).clamp_min(1)
        logit_NK = self.forward(hidden_ND, title_ND)
        return -(share_NK * logit_NK.log_softmax(1)).sum(1)
