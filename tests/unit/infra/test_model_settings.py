"""Every field of the model's and the learner's settings is a setting that arrives at the component it names."""

import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from infra.errors import SettingsError
from infra.learner_settings import learner_settings, log_settings
from infra.model_settings import ALL_GROUPS, with_setting
from infra.settings import load
from infra.settings_names import as_text, variable
from model.learner import Learner
from model.metrics.drift import DriftSettings
from model.setting_paths import MODEL_GROUPS, SettingField, setting_fields, value_at
from model.settings import LearnerSettings
from streaming.state.log_learner import LogLearner, restarted
from streaming.state.log_settings import GateSettings
from tests.support.learn_in_memory import LOG_SETTINGS
from tests.support.learner import SETTINGS, LogBuilder

torch.set_num_threads(1)

FIELDS = [field for field in setting_fields(ALL_GROUPS) if not field.info.follows]
OTHER_TEXT = {
    "drift.cap": "16.0",
    "objective.logq": "none",
    "optimizer.matrix_optimizer": "muon",
    "backbone.tasks": "action,genre",
}
NOT_CONSTRUCTED = {  # read only where the option that they belong to is in use
    "optimizer.muon_lr", "objective.title_weight", "objective.task_weight",
}  # fmt: skip


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def other_value(field: SettingField) -> str:
    """An allowed value that is not the default, as text."""
    default = current(field)
    if field.path in OTHER_TEXT:
        return OTHER_TEXT[field.path]
    if isinstance(default, bool):
        return str(not default)
    if isinstance(default, tuple):
        return "8,4"
    low, high = field.info.low, field.info.high
    assert low is not None
    assert high is not None
    if isinstance(default, int):
        return str(default * 2 if default and default * 2 <= high else int(high if default == low else low))
    return str(default / 2 if default / 2 > low else high)


def current(field: SettingField) -> Any:
    """The value of a field in the settings of the learner or of its log."""
    settings = load()
    root = learner_settings(settings) if field.group in MODEL_GROUPS else log_settings(settings)
    return value_at(root, field)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.path)
def test_setting_reaches_its_field(field: SettingField, monkeypatch: pytest.MonkeyPatch) -> None:
    before, text = current(field), other_value(field)
    monkeypatch.setenv(variable(field.path), text)
    after = current(field)
    assert after != before
    assert type(after) is type(before)
    assert as_text(after) == text


class Reads:
    """The fields of settings objects that code reads, except where settings are copied or listed."""

    COPIES = ("dataclasses", "model.setting_paths", "copy")

    def __init__(self) -> None:
        self.names: set[tuple[str, str]] = set()

    def recorded(self, settings: Any) -> Any:
        """The settings as an object that records each read of a field."""
        reads, kind = self, type(settings)

        class Recorded(kind):  # type: ignore[misc,valid-type]
            def __getattribute__(self, name: str) -> Any:
                if sys._getframe(1).f_globals["__name__"] not in reads.COPIES:
                    reads.names.add((kind.__name__, name))
                return super().__getattribute__(name)

        values = {one.name: getattr(settings, one.name) for one in fields(settings)}
        return Recorded(**{n: self.recorded(v) if is_dataclass(v) else v for n, v in values.items()})


@pytest.fixture(scope="module")
def read_fields() -> set[tuple[str, str]]:
    """The fields that a learner reads on a log with launches, evictions, a restart and checks of the gate."""
    reads = Reads()
    gate = GateSettings(min_probes=2, probes=4, min_events=10, drift=DriftSettings(block=2, warmup_blocks=2))
    model, log = reads.recorded(SETTINGS), reads.recorded(replace(LOG_SETTINGS, gate=gate))
    learner, messages = LogLearner(Learner(model), log), LogBuilder(seed=1).add_rounds(40).messages
    for message in messages[: len(messages) // 2]:
        learner.feed(message)
    learner = restarted(learner.state_dict(), model, log)
    for message in messages[learner.position :]:
        learner.feed(message)
    return reads.names


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.path)
def test_component_reads_its_field(field: SettingField, read_fields: set[tuple[str, str]]) -> None:
    if field.path not in NOT_CONSTRUCTED:
        assert (field.group.settings_class.__name__, field.name) in read_fields


def test_tables_come_from_all_sources_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("premiere.toml").write_text(
        'model_size = "2m"\n[backbone]\nblocks = 3\nd_id = 16\n[ranker]\nhidden = [32, 16]\n'
    )
    Path(".env").write_text("PREMIERE_BACKBONE__BLOCKS=4\nPREMIERE_OPTIMIZER__LR=0.1\n")
    monkeypatch.setenv("PREMIERE_BACKBONE__D_ID", "8")
    made = learner_settings(load())
    network = made.sequence.network
    assert (network.width, network.blocks, network.d_id) == (192, 4, 8)
    assert (made.ranker.hidden, made.sequence.optim.lr) == ((32, 16), 0.1)
    assert learner_settings(load(optimizer={"lr": 0.2})).sequence.optim.lr == 0.2


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("[backbone]\nwidht = 96", r"Unknown setting backbone\.widht: did you mean backbone\.width\?"),
        ("[backbone]\nwidth = 4", r"backbone\.width, from premiere\.toml: it must be at least 8"),
        ("[backbone]\nwidth = 65", "Settings contradict each other: backbone.width 65 is no multiple"),
        ("[backbone]\nmax_history = 5", r"Unknown setting backbone\.max_history"),
        ("[optimizer]\nlr = nan", r"optimizer\.lr, from premiere\.toml: it must be a finite number "),
        ("backbone = 3", "backbone is a table of settings"),
        ("model_history = 300", "model_history 300 is more than activity_history 200"),
        ("[optimizr]\nlr = 1", r"Unknown setting optimizr\.lr: did you mean optimizer\.lr\?"),
    ],
)
def test_invalid_tables_are_refused_by_name(file: str, message: str) -> None:
    Path("premiere.toml").write_text(file)
    with pytest.raises(SettingsError, match=message):
        load()


def test_experiments_use_the_same_names() -> None:
    base = LearnerSettings()
    changed = with_setting(with_setting(base, "backbone.width", "96"), "model_history", "50")
    network, state = changed.sequence.network, changed.stream_state
    assert (network.width, network.max_history, state.history) == (96, 50, 50)
    for name in ("learner.capacity", "horizons", "backbone.max_history", "gate.window"):
        with pytest.raises(KeyError):
            with_setting(base, name, "1")
    for name, text in (("backbone.width", "wide"), ("model_history", "1.5"), ("backbone.width", "7")):
        with pytest.raises(ValueError, match=r"."):
            with_setting(base, name, text)


CONTRADICTIONS = {
    "learner.min_batch_events": "1000", "gate.min_events": "501", "gate.min_probes": "51", "drift.cap": "6",
    "backbone.min_temperature": "0.08",
}  # fmt: skip


@pytest.mark.parametrize("path", CONTRADICTIONS)
def test_contradictions_are_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable(path), CONTRADICTIONS[path])
    with pytest.raises(
        SettingsError, match=rf"Settings contradict each other: {path.split('.')[0]}\.\w+ .* is more than"
    ):
        load()
