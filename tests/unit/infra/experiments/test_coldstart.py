"""Cold-start experiment on channels whose texts are fully informative, and the verdict on the cost of masking."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from infra.data.datasets import Dataset
from infra.experiments import coldstart
from infra.experiments.backbone_ranks import BACKBONE_ONLY, FINAL_LISTS, ORDER_LABELS
from infra.experiments.coldstart import (
    ABOVE_LIMIT,
    ID_ONLY,
    MASKED,
    NEIGHBORS,
    NO_BACKBONE,
    TEXT_ONLY,
    UNMASKED,
    VARIANTS,
    WITHIN_LIMIT,
    cold_share,
    masking_cost,
    variant_settings,
)
from infra.experiments.evaluate import write
from infra.experiments.verdicts import INCONCLUSIVE
from model.metrics.popularity_buckets import POPULARITY_BUCKETS
from model.sequence.network import Network
from tests.support.evaluation import SETTINGS, SILENT, START_S, dataset_of
from tests.support.figures import axes_of, labeled_lines, tick_labels
from tests.support.learner import D_TEXT, NETWORK

CHANNELS: Final = 4


def channels(events: int, users: int = 16) -> Dataset:
    """Each user watches one channel, whose name is the text of its titles. New titles launch all the time."""
    random = np.random.default_rng(5)
    released: dict[int, list[int]] = {channel: [] for channel in range(CHANNELS)}
    rows: list[tuple[int, int, int]] = []
    titles: list[dict[str, Any]] = []
    seen: set[tuple[int, int]] = set()
    while len(rows) < events:
        user = int(random.integers(users))
        channel, now = user % CHANNELS, START_S + 600 * len(rows)
        unseen = [title for title in released[channel] if (user, title) not in seen]
        if len(unseen) < 2:
            released[channel].append(len(titles))
            titles.append({"item": len(titles), "title": f"channel {channel}", "launched_ts": now - 300})
            continue
        title = int(random.choice(unseen[:3]))
        seen.add((user, title))
        rows.append((user, title, now))
    return dataset_of(rows, titles)


def channel_of(texts: Sequence[str]) -> NDArray[np.float32]:
    """An encoder with one dimension per channel."""
    vectors = np.zeros((len(texts), D_TEXT), np.float32)
    vectors[np.arange(len(texts)), [int(text.split("channel ")[1][0]) for text in texts]] = 1
    return vectors


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    sequence = SETTINGS.sequence
    settings = replace(SETTINGS, sequence=replace(sequence, steps=4, optim=replace(sequence.optim, lr=5e-3)))
    return coldstart.report(channels(420), channel_of, settings, SILENT)


@pytest.mark.learned
def test_variants_with_text_win_on_unseen_titles(found: dict[str, Any]) -> None:
    backbone = found[BACKBONE_ONLY]
    assert list(backbone) == [*VARIANTS, NEIGHBORS]
    for row in (TEXT_ONLY, UNMASKED, MASKED, NEIGHBORS):
        assert backbone[row]["mrr"]["0"] > 2 * backbone[ID_ONLY]["mrr"]["0"]  # 3.3 to 4.3 times, by seed and CPU
    assert backbone[ID_ONLY]["gain"]["0"]["high"] < 0  # the 95 % CI excludes zero
    assert backbone[NEIGHBORS]["hr10"]["0"] > 0.95  # the titles of a channel are a handful


@pytest.mark.learned
def test_final_lists_hide_missing_text_in_backbone(found: dict[str, Any]) -> None:
    lists = found[FINAL_LISTS]
    assert list(lists) == [*VARIANTS, NO_BACKBONE]
    without_text = lists[ID_ONLY]["mrr"]["0"]
    assert without_text > 0.7 * lists[UNMASKED]["mrr"]["0"]  # 0.89 to 1.08 times, by seed and CPU
    assert (
        without_text > 3 * found[BACKBONE_ONLY][ID_ONLY]["mrr"]["0"]
    )  # 4.2 to 6 times; if no model reads text 1.2 to 2.2


def test_mask_rate_is_the_cold_share_of_the_first_fifth(found: dict[str, Any]) -> None:
    data = channels(420)
    distinct = len(set(data.title[:84].tolist()))
    assert found["mask"] == found["cold_share"] == distinct / 84
    assert cold_share(data.slice(0, 84)) == distinct / 84
    changed = variant_settings(SETTINGS, 0.3)
    masks = {variant: settings.sequence.objective.id_mask for variant, settings in changed.items()}
    assert masks == {ID_ONLY: 0.0, TEXT_ONLY: 0.0, UNMASKED: 0.0, MASKED: 0.3}


def test_text_only_embeddings_ignore_ids() -> None:
    network = Network(replace(variant_settings(SETTINGS, 0.3)[TEXT_ONLY].sequence.network, d_text=NETWORK.d_text))
    text_VE, count_V = torch.randn(7, NETWORK.d_text), torch.arange(7.0)
    one, other = (network.title_vectors(text_VE, torch.randn(7, NETWORK.d_id), count_V) for _ in range(2))
    assert torch.equal(one, other)
    torch.autograd.backward(one.sum())
    assert network.tower.id.weight.grad is not None
    assert not network.tower.id.weight.grad.any()


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.001, 0.005, WITHIN_LIMIT), (-0.02, -0.01, ABOVE_LIMIT), (-0.02, 0.001, INCONCLUSIVE)],
)
def test_masking_cost_verdict_follows_from_interval(low: float, high: float, verdict: str) -> None:
    cost = masking_cost({"mean": (low + high) / 2, "low": low, "high": high}, unmasked_mrr=0.5)
    assert cost is not None
    assert cost["verdict"] == verdict
    assert (cost["low"], cost["high"]) == pytest.approx((-2 * high, -2 * low))  # shares of the MRR of 0.5


def test_masking_cost_is_unknown_without_well_known_titles(found: dict[str, Any]) -> None:
    assert found["popularity_buckets"]["20+"] == 0
    assert found["masking_cost"] == {BACKBONE_ONLY: None, FINAL_LISTS: None}
    assert "unknown" in next(coldstart.conclusions(found))


def test_report_is_consistent_and_readable(found: dict[str, Any], tmp_path: Path) -> None:
    assert sum(found["popularity_buckets"].values()) == found["scored"] == 336
    write(found, tmp_path / "cold.json")
    assert json.loads((tmp_path / "cold.json").read_text())[BACKBONE_ONLY] == found[BACKBONE_ONLY]
    text = "\n".join(coldstart.lines(found))
    assert f"{found[BACKBONE_ONLY][TEXT_ONLY]['mrr']['0']:.4f}" in text
    assert "half-open" in text
    gain = found[BACKBONE_ONLY][MASKED]["gain"]["1-4"]
    assert f"at 1-4 events {gain['mean']:+.4f} [{gain['low']:+.4f}, " in text


def test_figure_has_mrr_by_popularity_of_the_title(found: dict[str, Any]) -> None:
    with axes_of(coldstart.draw, found) as panels:
        for axes, (order, title) in zip(panels, ORDER_LABELS.items(), strict=True):
            curves, masked = labeled_lines(axes), f"{MASKED} {found['mask']:.0%}"
            assert (axes.get_title(), axes.get_yscale()) == (title, "log")
            assert tick_labels(axes) == [
                f"{bucket}\n({count:,})" for bucket, count in found["popularity_buckets"].items()
            ]
            assert list(curves) == [masked if variant == MASKED else variant for variant in found[order]]
            for curve, metrics in zip(curves.values(), found[order].values(), strict=True):
                mrr = np.array(list(metrics["mrr"].values()), float)
                np.testing.assert_array_equal(curve, [range(len(POPULARITY_BUCKETS)), mrr])
        assert panels[0].get_ylabel() == "MRR"
