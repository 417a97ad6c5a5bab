"""Sentences and numbers of the results page."""

import pytest

from infra.experiments import ablations, results_page
from infra.experiments.verdicts import BETTER, INCONCLUSIVE, WORSE

GAIN = {"mean": 0.002, "low": -0.001, "high": 0.005, "events": 1200, "users": 30}
BETTER_GAIN = GAIN | {"low": 0.001}
WORSE_GAIN = GAIN | {"mean": -0.002, "low": -0.005, "high": -0.001}


@pytest.mark.parametrize(("gain", "term"), [(GAIN, "inconclusive"), (BETTER_GAIN, "beats"), (WORSE_GAIN, "is below")])
def test_sentence_on_a_difference_follows_from_its_interval(gain: dict[str, float], term: str) -> None:
    sentence = results_page.describe_difference("a", "b", gain)
    assert term in sentence
    assert "1,200 events, 30 users" in sentence
    assert ("0.0020 MRR" in sentence) == (term != "inconclusive")


def test_ablations_are_grouped_by_verdict() -> None:
    gains = {ablations.DEFAULT: GAIN, "same": GAIN, "up": BETTER_GAIN, "down": WORSE_GAIN}
    table = {name: {"gain": {"all": gain}} for name, gain in gains.items()}
    assert results_page.ablation_verdicts(table) == {WORSE: ["down"], BETTER: ["up"], INCONCLUSIVE: ["same"]}


def test_numbers_have_leading_zeros() -> None:
    assert (results_page.decimal(0.01234), results_page.decimal(None)) == ("0.0123", "-")
    assert results_page.format_gain(GAIN) == "+0.0020 [-0.0010, +0.0050]"
