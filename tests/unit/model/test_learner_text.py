"""Another text encoder starts the text part of the learner again and keeps everything else bit for bit."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from model.learner import Learner
from model.seed import keep_weights_only
from model.state import title_cells
from model.state.embedding_space import EmbeddingSpace
from tests.support.learner import D_TEXT, SETTINGS, RandomStream, random_unit_vectors, state_differences, title_metadata

torch.set_num_threads(1)


@pytest.fixture
def trained() -> tuple[Learner, RandomStream]:
    learner, stream = Learner(SETTINGS), RandomStream(seed=2)
    for batch in stream.batches(25):
        learner.observe(batch)
    return learner, stream


def is_text(line: str) -> bool:
    return any(
        word in line
        for word in (
            "semantic_VE",
            "text_neighbors",
            "text_center",
            "changed_texts",
            "text_encoder",
            "tower.text",
            "tower_VD",
            "e_VP",
        )
    )


@pytest.mark.parametrize("width", [D_TEXT, 2 * D_TEXT, 3])
def test_only_the_text_part_starts_again(trained: tuple[Learner, RandomStream], width: int) -> None:
    learner, _ = trained
    before = learner.state_dict()
    learner.restart_text(EmbeddingSpace("other", width))
    after = learner.state_dict()
    assert [line for line in differences(before, after) if not is_text(line)] == []
    catalog = learner.stream_state.catalog
    assert catalog.semantic_VE.shape[1] == width
    assert not catalog.semantic_VE.any()
    assert (catalog.text_neighbors.to_VK == -1).all()
    fresh = Learner(learner.settings).served_pipeline.sequence
    restarted = learner.served_pipeline.sequence
    assert fresh is not None
    assert restarted is not None
    for name in ("tower.text.weight", "tower.text.bias", "tower.text_out.weight"):
        for weights in (restarted.network, restarted.served):
            assert torch.equal(weights.state_dict()[name], fresh.network.state_dict()[name])
        assert not any(
            name in key and "adamw" in key for key in after["training"]["pipelines"]["full"]["sequence"]["dense"]
        )


def differences(before: object, after: object) -> list[str]:
    """Differences of two states, in which entries of text weights may be missing or new."""
    return state_differences(without_text(before), without_text(after))


def without_text(state: object) -> object:
    if isinstance(state, dict):
        return {key: without_text(value) for key, value in state.items() if not is_text(f"/{key}")}
    return state


def test_learner_continues_with_texts_of_the_other_encoder(trained: tuple[Learner, RandomStream]) -> None:
    learner, stream = trained
    learner.restart_text(EmbeddingSpace("other", 5))
    text = random_unit_vectors(np.random.default_rng(0), 40, 5)
    learner.observe([title_metadata(f"t{n}", text[n]) for n in range(40)])
    stream.d_text = 5
    results = [learner.observe(batch) for batch in stream.batches(10)]
    assert all(np.isfinite(result.losses["full"]["backbone"]) for result in results if result.losses)
    weights = learner.served_pipeline.sequence
    assert weights is not None
    assert int(weights.optimizers.dense.state_dict()["adamw.tower.text.weight.step"]) > 0


def test_state_of_another_width_is_restored(trained: tuple[Learner, RandomStream]) -> None:
    learner, stream = trained
    learner.restart_text(EmbeddingSpace("other", 5))
    stream.d_text = 5
    learner.observe(stream.batch())
    restored = Learner(SETTINGS)
    restored.load_state_dict(learner.state_dict())
    assert restored.settings == learner.settings
    assert restored.stream_state.text_space == ("other", 5)
    batch = stream.batch()
    for one in (learner, restored):
        one.observe(batch)
    assert state_differences(learner.state_dict(), restored.state_dict()) == []


@pytest.mark.parametrize("drop", [lambda learner: learner.restart_text(EmbeddingSpace("other", 5)), keep_weights_only])
def test_cells_start_again_with_the_texts_or_the_titles(
    monkeypatch: pytest.MonkeyPatch, drop: Callable[[Learner], None]
) -> None:
    monkeypatch.setattr(title_cells, "MIN_TITLES", 12)
    monkeypatch.setattr(title_cells, "CELLS", 4)
    learner, restored, stream = Learner(SETTINGS), Learner(SETTINGS), RandomStream(seed=2)
    for batch in stream.batches(12):
        learner.observe(batch)
    assert learner.stream_state.catalog.text_cells.is_ready
    drop(learner)
    stream.d_text = learner.stream_state.text_space.width
    learner.observe(stream.batch())
    restored.load_state_dict(learner.state_dict())
    batch = stream.batch()
    for one in (learner, restored):
        one.observe(batch)
    assert state_differences(learner.state_dict(), restored.state_dict()) == []


def test_withdrawn_title_takes_the_text_of_its_record(trained: tuple[Learner, RandomStream]) -> None:
    learner, _ = trained
    text_E, catalog = np.eye(D_TEXT, dtype=np.float32)[1], learner.stream_state.catalog
    title = next(title for title in catalog.rows)
    learner.observe([title_metadata(title, text_E, withdrawn=True)])
    assert np.array_equal(catalog.semantic_VE[catalog.rows[title]], text_E)
    learner.observe([title_metadata(title, withdrawn=True)])
    assert np.array_equal(catalog.semantic_VE[catalog.rows[title]], text_E)
