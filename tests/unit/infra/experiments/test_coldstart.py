"""Cold starts by what stands for a title: a text that tells everything, ids alone, and what masking costs in words."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from matplotlib import image
from numpy.typing import NDArray

from infra.data.datasets import DataSet
from infra.experiments import coldstart
from infra.experiments.coldstart import IDS, MASKED, NEIGHBORS, ROWS, TEXTS, UNMASKED, WITHOUT, cold_share, variants
from infra.experiments.evaluate import write
from model.metrics.popularity_buckets import BUCKETS
from model.sequence.network import Network
from tests.support.evaluation import SETTINGS, START, data_of
from tests.support.learner import D_TEXT, NETWORK

CHANNELS: Final = 4


def channels(events: int, users: int = 16) -> DataSet:
    """Each user watches one channel, whose name is all of its titles' text; few watch a title, and new ones come."""
    random = np.random.default_rng(5)
    out: dict[int, list[int]] = {channel: [] for channel in range(CHANNELS)}
    rows: list[tuple[int, int, int]] = []
    titles: list[dict[str, Any]] = []
    seen: set[tuple[int, int]] = set()
    while len(rows) < events:
        user = int(random.integers(users))
        channel, now = user % CHANNELS, START + 600 * len(rows)
        unseen = [title for title in out[channel] if (user, title) not in seen]
        if len(unseen) < 2:
            out[channel].append(len(titles))
            titles.append({"item": len(titles), "title": f"channel {channel}", "launched_ts": now - 300})
            continue
        title = int(random.choice(unseen[:3]))
        seen.add((user, title))
        rows.append((user, title, now))
    return data_of(rows, titles)


def channel_of(texts: Sequence[str]) -> NDArray[np.float32]:
    """A direction a channel."""
    vectors = np.zeros((len(texts), D_TEXT), np.float32)
    vectors[np.arange(len(texts)), [int(text.split("channel ")[1][0]) for text in texts]] = 1
    return vectors


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    settings = replace(SETTINGS, sequence=replace(SETTINGS.sequence, steps=2))
    return coldstart.report(channels(420), channel_of, settings, lambda _line: None)


def test_where_the_text_tells_everything_rows_that_read_it_win_on_new_titles(found: dict[str, Any]) -> None:
    alone = found["alone"]
    assert list(alone) == [*ROWS, NEIGHBORS]
    for row in (TEXTS, UNMASKED, MASKED, NEIGHBORS):
        assert alone[row]["mrr"]["0"] > 2 * alone[IDS]["mrr"]["0"]
    assert alone[IDS]["gain"]["0"]["high"] < 0  # no chance
    assert alone[NEIGHBORS]["hr10"]["0"] > 0.95  # the titles of a channel are a handful


def test_the_lists_hide_it_for_their_ranker_reads_texts_too(found: dict[str, Any]) -> None:
    lists = found["lists"]
    assert list(lists) == [*ROWS, WITHOUT]
    assert lists[IDS]["mrr"]["0"] > 0.9 * lists[UNMASKED]["mrr"]["0"]


def test_masking_is_at_the_rate_of_the_first_fifth(found: dict[str, Any]) -> None:
    data = channels(420)
    met = [len(set(data.title[:n].tolist())) for n in (84, 0)]
    assert found["mask"] == found["cold_share"] == met[0] / 84
    assert cold_share(data.slice(0, 84)) == met[0] / 84
    changed = variants(SETTINGS, 0.3)
    masks = {row: of.sequence.objective.id_mask for row, of in changed.items()}
    assert masks == {IDS: 0.0, TEXTS: 0.0, UNMASKED: 0.0, MASKED: 0.3}


def test_texts_without_ids_are_exactly_that() -> None:
    network = Network(replace(variants(SETTINGS, 0.3)[TEXTS].sequence.network, d_text=NETWORK.d_text))
    text_VS, count_V = torch.randn(7, NETWORK.d_text), torch.arange(7.0)
    one, other = (network.title_vectors(text_VS, torch.randn(7, NETWORK.d_id), count_V) for _ in range(2))
    assert torch.equal(one, other)
    torch.autograd.backward(one.sum())
    assert network.tower.id.weight.grad is not None
    assert not network.tower.id.weight.grad.any()


def judged(low: float, high: float) -> str:
    """What is said where masking moves the warm titles' MRR of .5 by so much."""
    gains = {age: {"mean": (low + high) / 2, "low": low, "high": high} for age in BUCKETS}
    row = {"mrr": dict.fromkeys(BUCKETS, 0.5), "gain": gains}
    rows = {UNMASKED: row, MASKED: row}
    return next(coldstart.verdicts({"alone": rows, "lists": rows}))


def test_what_masking_costs_is_said_by_its_interval() -> None:
    assert "no more than 1 %: -0.4% of their MRR [-1.0%, +0.2%]" in judged(-0.001, 0.005)
    assert "costs warm titles (20 events and more) more than 1 %: +3.0% of their MRR [+2.0%" in judged(-0.02, -0.01)
    assert "cannot tell" in judged(-0.02, 0.001)


def test_ages_without_events_have_no_judgement(found: dict[str, Any]) -> None:
    assert found["ages"]["20+"] == 0
    assert "cannot be judged" in next(coldstart.verdicts(found))


def test_the_report_adds_up_and_can_be_read_and_seen(found: dict[str, Any], tmp_path: Path) -> None:
    assert sum(found["ages"].values()) == found["scored"] == 336
    write(found, tmp_path / "cold.json")
    assert json.loads((tmp_path / "cold.json").read_text())["alone"] == found["alone"]
    text = "\n".join(coldstart.lines(found))
    assert f"{found['alone'][TEXTS]['mrr']['0']:.4f}" in text
    assert "half-open" in text
    gain = found["alone"][MASKED]["gain"]["1-4"]
    assert f"at 1-4 events {gain['mean']:+.4f} [{gain['low']:+.4f}, " in text
    coldstart.draw(found, tmp_path / "cold.png")
    assert len(np.unique(image.imread(tmp_path / "cold.png").reshape(-1, 4), axis=0)) > 20
