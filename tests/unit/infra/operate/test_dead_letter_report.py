"""Dead letters are printed as a table or as JSON, and resent only after a confirmation."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from infra.operate.dead_letter_report import print_letters, resend_letters
from infra.operate.dead_letters import NOTE_STARTED, DeadLetter
from infra.operate.resend import resend_note
from infra.settings import Settings
from streaming.kafka.source import read_all
from streaming.topics import DEAD_LETTERS, USER_EVENTS
from tests.support.dead_letters import message, write, write_letters


@pytest.fixture
def settings(new_kafka: dict[str, str], tmp_path: Path) -> Settings:
    return Settings(bootstrap_servers=new_kafka["bootstrap.servers"], data_dir=tmp_path)


def printed(settings: Settings, reason: str | None = None, newest: int = 0, as_json: bool = False) -> str:
    out = io.StringIO()
    print_letters(settings, reason, newest, as_json, Console(file=out, width=150))
    return out.getvalue()


def resent(settings: Settings, *, include_uncertain: bool = False, confirm: bool = True) -> tuple[list[str], list[str]]:
    """The questions and the printed lines."""
    questions: list[str] = []
    lines: list[str] = []

    def answer(question: str) -> bool:
        questions.append(question)
        return confirm

    resend_letters(settings, None, include_uncertain, answer, lines.append)
    return questions, lines


def test_letters_are_printed_as_table_and_json(settings: Settings) -> None:
    config = settings.kafka_config()
    assert printed(settings) == "No dead letters.\n"
    assert printed(settings, "key") == "No dead letters with the reason 'key'.\n"
    write_letters(config, (message(0, b"{"), "not JSON: [bold] no"), (message(1), "unknown action: yawn"))
    write_letters(config, (message(1), "unknown action: yawn"), (message(2), "unknown action: yawn"))
    head, first, second, *examples = printed(settings).splitlines()
    assert head.split() == ["reason", "letters", "duplicates", "resent", "uncertain", "newest"]
    assert first.split()[:6] == ["not", "JSON", "1", "0", "0", "0"]
    assert examples == ["Examples:", "  not JSON: [bold] no", "  unknown action: yawn"]
    assert second.split()[:6] == ["unknown", "action", "2", "1", "0", "0"]
    found = json.loads(printed(settings, newest=2, as_json=True))
    assert found["reasons"]["unknown action"]["letters"] == 2
    assert [letter["source"] for letter in found["letters"]] == ["user-events-0-1", "user-events-0-2"]


def test_letters_are_resent_after_confirmation_unless_uncertain(settings: Settings) -> None:
    config = settings.kafka_config()
    assert resent(settings) == ([], ["No letters to resend."])
    write_letters(config, (message(0), "unknown action: x"), (message(1, None), "tombstone: x"))
    questions, lines = resent(settings, confirm=False)
    assert (len(questions), lines) == (1, [])
    assert "2 letters" in questions[0]
    assert list(read_all(config, USER_EVENTS)) == []
    letter = next(DeadLetter.parse(record) for record in read_all(config, DEAD_LETTERS))
    write(config, [resend_note([letter], NOTE_STARTED)])
    result, uncertain = resent(settings)[1]
    assert result == "Resent 0 letters; skipped: 1 empty, 1 uncertain."
    assert uncertain.startswith("1 letters are uncertain")
    assert "`--again`" in uncertain
    assert resent(settings, include_uncertain=True)[1][-1] == "Resent 1 letters; skipped: 1 empty."
    assert len(list(read_all(config, USER_EVENTS))) == 1
