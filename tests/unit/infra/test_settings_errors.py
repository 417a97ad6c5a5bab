"""An invalid setting is one sentence: its name, its source, and what it must be; never its value."""

from pathlib import Path

import pytest

from infra.errors import SettingsError
from infra.settings import load


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def error(**given: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load(**given)
    return str(caught.value).removesuffix(" (see `premiere settings --table`).")


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("CHECKPOINT_SECONDS", "abc", "it must be a number"),
        ("CHECKPOINT_SECONDS", "0", "it must be more than 0"),
        ("THREADS", "0", "it must be at least 1"),
        ("BACKBONE__WIDTH", "2.5", "it must be a whole number"),
        ("BACKBONE__WIDTH", "9000", "it must be at most 8192"),
        ("BROKER", "x", "it must be 'embedded' or 'apache'"),
        ("HORIZONS", "a", "it must be a whole number"),
        ("RANKER__HIDDEN", "1,2,3", "it must have at most 2 entries"),
        ("RANKER__HIDDEN", "1", "it must have more entries"),
        ("VERSION_GATE", "maybe", "it must be true or false"),
        ("PREFIX", "-a", "it may contain only ASCII letters, digits and _, and must not begin with _"),
        ("TITLE_VECTORS", "clip", "it must be NAME:WIDTH with a width from 1 to 2048, for example clip:512"),
        ("TITLE_VECTORS", "clip:2049", "it must be NAME:WIDTH with a width from 1 to 2048, for example clip:512"),
        ("CHECKPOINT_SECONDS", "inf", "it must be a finite number"),
        ("OPTIMIZER__LR", "nan", "it must be a finite number"),
        ("HORIZONS", "0,99999", "horizons must start with 0 and increase up to 10000, for example 0,3,10"),
    ],
)
def test_reason_is_plain(variable: str, value: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"PREMIERE_{variable}", value)
    name = variable.lower().replace("__", ".")
    assert error() == (
        f"Invalid value of the setting {name}, from the environment variable PREMIERE_{variable}: {reason}"
    )


def test_source_is_the_one_with_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_HOME", "")  # an empty variable is none
    (tmp_path / "premiere.toml").write_text("threads = 0\n")
    assert error() == "Invalid value of the setting threads, from premiere.toml: it must be at least 1"
    (tmp_path / ".env").write_text("# comment\nPREMIERE_THREADS=-1\n")
    assert error() == "Invalid value of the setting threads, from PREMIERE_THREADS in .env: it must be at least 1"
    monkeypatch.setenv("PREMIERE_THREADS", "-2")
    assert "from the environment variable PREMIERE_THREADS:" in error()
    assert "threads, which the command sets:" in error(threads=-3)
    (tmp_path / "premiere.toml").write_text("[backbone]\nwidth = 'wide'\n")
    assert "backbone.width, from premiere.toml: it must be a whole number" in error(threads=1)


def test_variable_of_other_tools_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREMIERE_REDIS_URL", raising=False)
    monkeypatch.setenv("REDIS_URL", "http://:hush@h")
    assert error().startswith("Invalid value of the setting redis_url, from the environment variable REDIS_URL: ")
    assert "hush" not in error()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("PREMIERE_SEED=1\nthis is no setting\n", ".env cannot be read: line 2 is not NAME=value."),
        ("A='unclosed\nPREMIERE_SEED=1\n", ".env cannot be read: line 1 is not NAME=value."),
        ("\n\nPREMIERE_SEED\n", ".env cannot be read: line 3 gives PREMIERE_SEED no value: write NAME=value."),
    ],
)
def test_line_of_the_env_file_that_would_be_ignored_is_refused(content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(content)
    assert error() == reason
