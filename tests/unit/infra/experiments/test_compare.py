"""Two settings side by side: the same is the same, a crippled one loses, and the last days are the test."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
from matplotlib import image
from typer.testing import CliRunner

from infra.cli.main import app
from infra.data.datasets import DataSet
from infra.errors import SettingsError
from infra.experiments import compare
from infra.experiments.harness import ALONE
from infra.experiments.scaling import sized
from model.learner import LearnerSettings
from model.sequence.backbone import Dims
from model.sequence.network import preset
from tests.support.evaluation import DAY, SETTINGS, START, checkerboard, data_of, no_text

CRIPPLED: Final = "memory.most_titles=20"  # of 60: it forgets what it is asked for


def quiet(_line: str) -> None:
    """Progress that nobody reads."""


def compared(names: tuple[str, str], data: DataSet | None = None, days: float | None = None) -> dict[str, Any]:
    return compare.report(data or checkerboard(320), no_text, SETTINGS, names, quiet, days)


@pytest.fixture(scope="module")
def crippled() -> dict[str, Any]:
    return compared(("as-set", CRIPPLED))


def test_the_same_settings_are_the_same_in_every_event() -> None:
    found = compared(("as-set", "seed=1"))  # which it is
    assert found["scored"] == 256
    for of in found["gain"].values():
        assert all(gain[key] == 0 for gain in of.values() if gain for key in ("mean", "low", "high"))
    assert found["mrr"]["A"] == found["mrr"]["B"]
    assert found["curve"]["A" + ALONE] == found["curve"]["B" + ALONE]
    assert list(compare.lines(found))[-1] == compare.verdict(found)
    assert compare.verdict(found).startswith("There is no difference between A and B, over 256 events of 20 users")


def test_one_that_forgets_loses(crippled: dict[str, Any]) -> None:
    gain = crippled["gain"]["the final lists"]["all"]
    assert gain["high"] < 0
    assert crippled["gain"]["the backbone alone"]["all"]["high"] < 0
    assert crippled["mrr"]["B"]["all"] < 0.5 * crippled["mrr"]["A"]["all"]
    assert gain["mean"] == pytest.approx(crippled["mrr"]["B"]["all"] - crippled["mrr"]["A"]["all"])
    assert compare.verdict(crippled).startswith(f"A (as-set) is better than B ({CRIPPLED}): B has MRR -")


def test_the_verdict_is_the_intervals(crippled: dict[str, Any]) -> None:
    def of(**gain: float) -> str:
        gain = {"events": 99, "users": 30} | gain
        return compare.verdict(crippled | {"gain": {"the final lists": {"all": gain}}})

    assert of(mean=0.1, low=0.01, high=0.2).startswith(f"B ({CRIPPLED}) is better than A (as-set): MRR +0.1000")
    assert of(mean=0.1, low=0.1, high=0.1, users=1).startswith("No verdict: 99 events of 1 users are too few")
    assert of(mean=0.1, low=-0.01, high=0.2).startswith("There is no difference between A and B that 99 events of 30")


def test_the_report_adds_up_and_can_be_read_and_seen(crippled: dict[str, Any], tmp_path: Path) -> None:
    parts = crippled["parts"]
    assert sum(parts[age] for age in ("0", "1-4", "5-19", "20+")) == parts["all"] == crippled["scored"]
    events = [event.title for event in map(checkerboard(320).event, range(320))]
    firsts = sum(title not in events[:n] for n, title in enumerate(events) if n >= 64)
    assert parts["0"] == firsts  # whatever B has forgotten
    assert json.loads(json.dumps(crippled))["settings"]["B"]["memory"]["most_titles"] == 20
    text = "\n".join(compare.lines(crippled))
    assert "titles of 1-4 events" in text
    assert f"{crippled['mrr']['B' + ALONE]['all']:.4f}" in text
    verdict, apart = text.splitlines()[-2:]
    assert verdict == compare.verdict(crippled)
    assert "; the backbone alone, all -" in apart
    assert "titles of 20+ events" not in apart  # there was none
    compare.draw(crippled, tmp_path / "shadow.png")
    assert len(np.unique(image.imread(tmp_path / "shadow.png").reshape(-1, 4), axis=0)) > 20


def test_the_last_days_are_the_test_and_what_came_before_is_learned() -> None:
    data = data_of([(n % 7, n % 31, START + n * DAY // 10) for n in range(200)])  # ten events a day
    assert compare.first_of_test(data, 7) == 130  # the last 70
    assert compare.first_of_test(data, None) == 40
    found = compared(("as-set", "as-set"), data, days=7)
    assert (found["learned_before"], found["scored"], found["days"]) == (130, 70, 7)
    assert found["curve"]["until"][-1] == "2020-10-03T10:02+00:00"
    with pytest.raises(SettingsError, match=r"The data span 19\.9 days: give fewer"):
        compare.first_of_test(data, 20)


def test_settings_go_by_name() -> None:
    base = LearnerSettings()
    assert compare.named("as-set", base) == base
    assert compare.named("2m", base).sequence.network == preset("2m")
    assert compare.named("32x4,seed=5", base) == replace(sized(base, Dims(32, 4, 1)), seed=5)
    changed = compare.named("10m, sequence.network.history=50,delayed=0,sequence.objective.logq=none", base)
    assert changed.sequence.network == replace(preset("10m"), history=50)
    assert (changed.delayed, type(changed.delayed)) == (0.0, float)
    assert changed.sequence.objective.logq == "none"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("huge", r"'huge' is neither as-set nor a size \(cpu, 2m, "),
        (
            "sequence.netwrk.width=8",
            "There is no setting sequence.netwrk.width: instead of 'netwrk' there are network,",
        ),
        ("sequence.network=8", "sequence.network is a group of settings"),
        ("seed=x", "seed=x: a value of type int is wanted, as in seed=0"),
        ("repeats=1", "type bool is wanted, as in repeats=false"),
        ("sequence.network.horizons=[0]", "is a list"),
        ("seed.x=1", "seed is no group"),
    ],
)
def test_a_name_that_cannot_be_used_says_what_can(words: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        compare.named(words, LearnerSettings())


def test_both_must_score_the_same_events() -> None:
    with pytest.raises(SettingsError, match="must be the same for both"):
        compared(("as-set", "repeats=true"))


def test_both_commands_run_on_a_users_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(n % 5, (n * 7) % 13, START + 600 * n) for n in range(60)]
    pd.DataFrame(rows, columns=["user", "item", "ts"]).to_csv("e.csv", index=False)
    for words in (["coldstart", "--mask", "0.2"], ["shadow", "cpu", "shortlist=2"]):
        asked = [*words, "--events", "e.csv", "--report", "r.json", "--figure", "f.png"]
        result = CliRunner().invoke(app, asked)
        assert result.exit_code == 0, result.output
        assert "60 events" in result.output or "12 events learned before" in result.output
        assert json.loads(Path("r.json").read_text())["data"] == "e"
        assert image.imread("f.png").shape[0] > 300
    wrong = CliRunner().invoke(app, ["shadow", "cpu", "large", "--events", "e.csv"])
    assert (wrong.exit_code, wrong.stderr[:30]) == (1, "premiere: 'large' is neither a")
