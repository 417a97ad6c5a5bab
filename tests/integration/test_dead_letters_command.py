"""`premiere dead-letters` on a real broker: counts by reason, output formats, and resending."""

import json
from typing import Any

from typer.testing import CliRunner

from infra.cli.main import app
from infra.operate.dead_letters import NOTE_STARTED, DeadLetter, list_letters
from infra.operate.resend import resend_note
from streaming.kafka.dead_letters import MAX_KEPT_BYTES, RESENT_FROM_HEADER
from streaming.kafka.source import read_all
from streaming.topics import DEAD_LETTERS, TITLE_LAUNCHES, USER_EVENTS
from tests.support.dead_letters import INVALID_EVENT, message, write, write_letters


def run(config: dict[str, str], *arguments: str, answer: str | None = None) -> Any:
    env = {"PREMIERE_BOOTSTRAP_SERVERS": config["bootstrap.servers"], "COLUMNS": "150"}
    return CliRunner().invoke(app, ["dead-letters", *arguments], env=env, input=answer)


def test_command_prints_table_letters_and_json(new_kafka: dict[str, str]) -> None:
    write_letters(new_kafka, (message(7, b"\xff[bold]", key=None), "not JSON: [bold] no"))
    table = run(new_kafka, "--last", "3")
    assert table.exit_code == 0, table.output
    assert "not JSON" in table.output
    assert "user-events-0-7" in table.output
    assert "[bold]" in table.output
    found = json.loads(run(new_kafka, "--last", "3", "--json").output)
    assert found["reasons"]["not JSON"]["letters"] == 1
    assert found["letters"][0]["value"] == "\\xff[bold]"
    assert found["letters"][0]["key"] is None


def test_letters_are_resent_unchanged_and_at_most_once(new_kafka: dict[str, str]) -> None:
    huge = message(3, b"x" * (MAX_KEPT_BYTES + 1))
    write_letters(new_kafka, (message(0), "unknown action: yawn"), (message(0), "unknown action: yawn"))
    write_letters(new_kafka, (huge, "too large: x"), (message(4, None), "tombstone: x"))
    write_letters(new_kafka, (message(5, b"{", TITLE_LAUNCHES, b"7"), "not JSON: x"))
    assert "Resend up to 4 letters" in run(new_kafka, "--resend", answer="n\n").output
    assert list(read_all(new_kafka, USER_EVENTS)) == []
    done = run(new_kafka, "--resend", "--yes")
    assert done.exit_code == 0, done.output
    assert "Resent 2 letters; skipped: 1 empty, 1 truncated." in done.output
    (event,), (launch,) = read_all(new_kafka, USER_EVENTS), read_all(new_kafka, TITLE_LAUNCHES)
    assert (event.key, event.value, event.headers) == (b"u", INVALID_EVENT, [(RESENT_FROM_HEADER, b"user-events-0-0")])
    assert (launch.key, launch.value) == (b"7", b"{")
    write_letters(new_kafka, (message(0), "unknown action: yawn"))  # a restarted flow may write it again
    assert "Resent 0 letters" in run(new_kafka, "--resend", "--yes").output
    assert len(list(read_all(new_kafka, USER_EVENTS))) == 1
    groups = list_letters(new_kafka).reasons
    assert [(groups[name].letters, groups[name].resent) for name in ("unknown action", "not JSON", "too large")] == [
        (1, 1), (1, 1), (1, 0),
    ]  # fmt: skip


def test_interrupted_resend_leaves_uncertain_letters(new_kafka: dict[str, str]) -> None:
    write_letters(new_kafka, (message(0), "unknown action: x"), (message(1), "unknown action: x"))
    first = next(DeadLetter.parse(m) for m in read_all(new_kafka, DEAD_LETTERS))
    write(new_kafka, [resend_note([first], NOTE_STARTED)])
    assert list_letters(new_kafka).reasons["unknown action"].uncertain == 1
    output = run(new_kafka, "--resend", "--yes").output
    assert "Resent 1 letters; skipped: 1 uncertain." in output
    assert "`--again`" in output
    assert "Resent 1 letters" in run(new_kafka, "--resend", "--yes", "--again").output
    group = list_letters(new_kafka).reasons["unknown action"]
    assert (group.letters, group.resent, group.uncertain) == (2, 2, 0)
    assert "No letters to resend" in run(new_kafka, "--resend", "--again").output
