"""The error that ended a flow is found in its log, whatever libraries print after it."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.local.last_error import last_error
from infra.run.logs import configure_logs
from infra.settings import Settings

NOISE = 'nanobind: leaked 12 functions!\n - leaked function "create_make_range"\n' * 20


@pytest.fixture(autouse=True)
def restored_logging() -> Any:
    root, level = logging.getLogger(), logging.getLogger().level
    handlers = list(root.handlers)
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("streaming", "infra", "model", "features"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def write_log(path: Path, settings: Settings, expected: bool) -> str:
    """Log as a flow does that ends, followed by noise; returns the last error."""
    with path.open("w") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", file)
        configure_logs(settings, "learn")
        log = logging.getLogger("infra.test")
        log.info("Reading from offset %d.", 7)
        log.debug("not shown")
        try:
            raise ValueError("the width is 384") from KeyError("cause")
        except ValueError:
            if expected:
                log.critical("The flow learn cannot continue. The disk is full.")
            else:
                log.critical("An unexpected error ended the flow.", exc_info=True)
        file.write(NOISE)
    return last_error(path)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_error_is_found_before_the_noise(tmp_path: Path, log_format: Any) -> None:
    settings = Settings(log_format=log_format)
    assert write_log(tmp_path / "a", settings, True) == "The flow learn cannot continue. The disk is full."
    assert write_log(tmp_path / "b", settings, False) == (
        "An unexpected error ended the flow. ValueError: the width is 384"
    )


def test_each_line_has_time_level_and_flow(tmp_path: Path) -> None:
    write_log(tmp_path / "text", Settings(), True)
    first = (tmp_path / "text").read_text().splitlines()[0].split(" ", 1)
    assert first[1] == "INFO learn: Reading from offset 7."
    write_log(tmp_path / "json", Settings(log_format="json"), False)
    lines = [json.loads(line) for line in (tmp_path / "json").read_text().splitlines() if line.startswith("{")]
    assert [line["level"] for line in lines] == ["INFO", "CRITICAL"]
    assert lines[0] | {"time": ""} == {
        "time": "", "level": "INFO", "flow": "learn", "logger": "infra.test", "message": "Reading from offset 7.",
    }  # fmt: skip
    assert lines[1]["exception"].endswith("ValueError: the width is 384")


def test_level_is_a_setting(tmp_path: Path) -> None:
    write_log(tmp_path / "log", Settings(log_level="error"), True)
    assert "INFO" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("premiere: No Kafka broker is set.\n" + NOISE, "No Kafka broker is set."),
        ("Traceback (most recent call last):\n  File x\nImportError: no module\n" + NOISE, "ImportError: no module"),
        ("killed\n", "killed"),
        ("", ""),
    ],
)
def test_process_that_ended_before_it_logged(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "log").write_text(text)
    assert last_error(tmp_path / "log") == found
    assert last_error(tmp_path / "missing") == ""
