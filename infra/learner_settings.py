"""Builds the settings of the learner and its log from the operator's settings, and sets the number of PyTorch threads.

The flows `learn` and `publish`, the operator commands and the experiments share them, so that they build the same model
and compute with the same number of threads. Only `set_threads` imports PyTorch.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from infra.errors import SettingsError
from infra.model_settings import with_tables
from infra.settings_names import as_text
from model.settings import (
    LearnerSettings,
    ObjectiveSettings,
    SequenceSettings,
    StreamStateSettings,
    preset,
    with_text_width,
)
from streaming.state.log_settings import GateSettings, LogSettings
from streaming.state.settings_history import shape_differences

if TYPE_CHECKING:
    from infra.settings import Settings

MIN_TARGET_WINDOW: Final = 5  # events in the target set of a later horizon


def learner_settings(settings: "Settings", d_text: int = StreamStateSettings.d_text) -> LearnerSettings:
    """The settings of the model, for text embeddings of width `d_text`; the learner takes the width from its log.

    Raises ValueError if values of the tables contradict each other.
    """
    history = settings.model_history
    network = replace(preset(settings.model_size, settings.horizons), max_history=history)
    windows = tuple(1 if horizon == 0 else max(MIN_TARGET_WINDOW, horizon) for horizon in settings.horizons)
    sequence = SequenceSettings(network, ObjectiveSettings(target_windows=windows))
    stream_state = StreamStateSettings(
        max_titles=settings.max_titles, min_users_before_launch=settings.min_users_before_launch, history=history
    )
    made = LearnerSettings(stream_state, sequence, repeats=not settings.filter_seen, seed=settings.seed)
    return with_text_width(with_tables(made, settings), d_text)


def log_settings(settings: "Settings") -> LogSettings:
    """The settings of the learner on its log. Raises ValueError if values of the tables contradict each other."""
    gate = GateSettings(enabled=settings.version_gate)
    made = LogSettings(checkpoint_ms=round(settings.checkpoint_seconds * 1000), gate=gate)
    return with_tables(made, settings)


def check_checkpoint_settings(manifest: Mapping[str, Any], settings: LearnerSettings, url: str) -> None:
    """Raises SettingsError if the checkpoint was written with other settings that determine the model's shape."""
    if saved := shape_differences(manifest.get("settings", {}), settings):
        values = ", ".join(f"{name} = {as_text(value) or 'none'}" for name, value in saved.items())
        raise SettingsError(
            f"The checkpoint at {url} was written with {values}. The shape of the model depends on it, and the present "
            "settings differ. Restore these values, or set PREMIERE_CHECKPOINTS to another folder to start from "
            "scratch."
        )


def set_threads(threads: int) -> None:
    """Limit PyTorch to this number of threads, since several flows share the machine.

    The matrix multiplication precision stays at PyTorch's default, "highest". A lower one uses oneDNN kernels, which
    are faster if shapes repeat. Here the shapes differ at each step, and oneDNN compiles and keeps a kernel for each.
    That cost 10 to 25 % more CPU and 900 MB (measured).
    """
    import torch

    torch.set_num_threads(threads)
