"""Restarts after a crash are counted across processes."""

from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from infra.run.starts import counted_start


def restarts() -> float | None:
    return REGISTRY.get_sample_value("premiere_flow_restarts")


def test_only_starts_after_a_crash_are_counted(tmp_path: Path) -> None:
    for crashes, expected in ((True, 0), (True, 1), (False, 2), (False, 2)):
        try:
            with counted_start(tmp_path, "learn", 0):
                assert restarts() == expected
                if crashes:
                    raise KeyError
        except KeyError:
            pass
    with counted_start(tmp_path, "learn", 1):
        assert restarts() == 0


@pytest.mark.parametrize("content", ["", "[]", "{", '{"restarts": "x"}'])
def test_damaged_file_counts_from_zero(tmp_path: Path, content: str) -> None:
    (tmp_path / "starts").mkdir()
    (tmp_path / "starts" / "learn-0.json").write_text(content)
    with counted_start(tmp_path, "learn", 0):
        assert restarts() == 0


def test_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "starts").write_text("a file")
    with counted_start(tmp_path, "learn", 0):
        assert restarts() == 0
