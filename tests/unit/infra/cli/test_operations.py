"""The commands for operators ask before they delete, and print what the operation reports."""

from pathlib import Path

from typer.testing import CliRunner

from features.definitions import user_activity
from infra.cli.main import app


def test_reset_command_asks_and_reports_kept_topics(tmp_path: Path) -> None:
    (tmp_path / "recovery").mkdir()
    (tmp_path / "data").mkdir()
    env = {"PREMIERE_DATA_DIR": str(tmp_path), "PREMIERE_BOOTSTRAP_SERVERS": "kafka:9092", "REDIS_URL": ""}
    declined = CliRunner().invoke(app, ["reset"], env=env, input="n\n")
    assert "[y/N]" in declined.output
    assert "The topics at kafka:9092 are kept." in declined.output
    assert (tmp_path / "recovery").exists()
    assert CliRunner().invoke(app, ["reset", "--yes"], env=env).exit_code == 0
    assert not (tmp_path / "recovery").exists()
    assert (tmp_path / "data").exists()


def test_compact_command_prints_each_log(tmp_path: Path) -> None:
    (tmp_path / "feast" / "offline" / user_activity.name).mkdir(parents=True)
    result = CliRunner().invoke(app, ["compact"], env={"PREMIERE_DATA_DIR": str(tmp_path)})
    assert result.exit_code == 0, result.output
    assert result.stdout.split()[:2] == [user_activity.name, "0"]
