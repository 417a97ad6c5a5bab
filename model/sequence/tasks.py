"""Auxiliary tasks on the backbone, beside the next title: action and genre. Each has a target and a small head.

    action   what does the user do with the next title?   p(action | history, title)
    genre    which genre has the next title?              p(genre | history)

Both read the token that predicts the next title. The loss is a cross-entropy whose target is uniform over the true
classes (a title has several genres); a row without a true class has no loss. The default model has no auxiliary task
(`NetworkSettings.tasks`): it then draws no weights and computes nothing for them.
Source: arXiv 2605.23312, whose backbone serves three tasks; the design of its heads was not available to us.

N rows · D width of the backbone · K classes of a task · G genres of a title
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from model.actions import LIKING, TARGET_WEIGHTS
from model.settings import TASK_NAMES
from model.state.catalog import GENRE_CODES

# Speeds up learning: AdamW moves each weight by the same amount, and there are few steps. The value is not measured.
LOGIT_SCALE: Final = 10.0
MIN_LIKED: Final = 1.5  # liking (`model.actions`) from which on an event shows that the user liked the title
LIKED: Final = torch.tensor([liking >= MIN_LIKED for liking in LIKING])  # by code: finish, like, purchase, rated high


@dataclass(frozen=True)
class Task:
    """An auxiliary task of the sequence model."""

    classes: int
    reads_title: bool  # whether the head also reads the next title's vector
    targets: Callable[[Tensor, Tensor], Tensor]  # (action_N, genres_NG with -1 for none) -> true classes, bool [N, K]


def _action(action_N: Tensor, _genres_NG: Tensor) -> Tensor:
    return one_hot(action_N, len(TARGET_WEIGHTS)).bool()


def _genre(_action_N: Tensor, genres_NG: Tensor) -> Tensor:
    true_NK = torch.zeros(len(genres_NG), 1 + GENRE_CODES, dtype=torch.bool)  # column 0 stands for "no genre"
    return true_NK.scatter_(1, genres_NG.long() + 1, True)[:, 1:]


ACTION, GENRE = TASK_NAMES
TASKS: Final = {ACTION: Task(len(TARGET_WEIGHTS), True, _action), GENRE: Task(GENRE_CODES, False, _genre)}


class TaskHead(nn.Module):
    """Logits of a task's classes, from the hidden state, the title's vector and their elementwise product."""

    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        self.task = task
        self.classes = nn.Linear(3 * width if task.reads_title else width, task.classes)
        nn.init.zeros_(self.classes.weight)
        nn.init.zeros_(self.classes.bias)

    def forward(self, hidden_ND: Tensor, title_ND: Tensor) -> Tensor:
        """logit_NK; `title_ND` are tower vectors."""
        inputs = torch.cat([hidden_ND, title_ND, hidden_ND * title_ND], 1) if self.task.reads_title else hidden_ND
        logit_NK: Tensor = self.classes(inputs) * LOGIT_SCALE
        return logit_NK

    def losses(self, hidden_ND: Tensor, title_ND: Tensor, action_N: Tensor, genres_NG: Tensor) -> Tensor:
        """loss_N in nats."""
        true_NK = self.task.targets(action_N, genres_NG).float()
        target_NK = true_NK / true_NK.sum(1, keepdim=True).clamp_min(1)
        logit_NK = self.forward(hidden_ND, title_ND)
        return -(target_NK * logit_NK.log_softmax(1)).sum(1)
