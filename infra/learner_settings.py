"""Builds the learner's settings from the operator's settings, and sets the number of PyTorch threads.

The flows `learn` and `publish`, the operator commands and the experiments share both, so that they build the same model
and compute with the same number of threads. Both functions import PyTorch only when they are called.
"""

from typing import TYPE_CHECKING

from infra.settings import Settings

if TYPE_CHECKING:
    from model.learner import LearnerSettings


def learner_settings(settings: Settings) -> "LearnerSettings":
    """The learner's settings for the operator's settings."""
    from model.learner import LearnerSettings
    from model.sequence.model import SequenceSettings
    from model.sequence.network import preset
    from model.sequence.objective import ObjectiveSettings
    from model.state.stream_state import StreamStateSettings

    windows = tuple(1 if horizon == 0 else max(5, horizon) for horizon in settings.horizons)
    sequence = SequenceSettings(
        preset(settings.model_size, settings.horizons), ObjectiveSettings(target_windows=windows)
    )
    stream_state = StreamStateSettings(
        max_titles=settings.max_titles, min_users_before_launch=settings.min_users_before_launch
    )
    return LearnerSettings(stream_state, sequence, repeats=not settings.filter_seen, seed=settings.seed)


def set_threads(threads: int) -> None:
    """Limit PyTorch to this number of threads, since several flows share the machine.

    The matrix multiplication precision stays at PyTorch's default, "highest". A lower one uses oneDNN kernels, which
    are faster if shapes repeat. Here the shapes differ at each step, and oneDNN compiles and keeps a kernel for each.
    That cost 10 to 25 % more CPU and 900 MB (measured).
    """
    import torch

    torch.set_num_threads(threads)
