"""The model settings that ablations change have the effect that they name; the defaults are tested elsewhere."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from infra.errors import SettingsError
from infra.run.learn import check_checkpoint_settings
from model.learner import LearnerSettings
from model.sequence.model import SequenceModel
from model.sequence.network import Network, encode_titles, encode_users
from model.sequence.objective import build_batch, log_expected, row_losses, sample_negatives, train_step
from model.sequence.optimizers import DenseOptimizer, OptimSettings
from tests.support.learner import SEQUENCE
from tests.support.network import SETTINGS, after_last_event, make_network, random_windows, titles
from tests.support.objective import NETWORK, OBJECTIVE, generator, training_setup, windows_of
from tests.support.sequence import catalog, history, learn_last_events

TOLERANCE = 1e-5


@pytest.mark.parametrize("time_bias", [True, False])
def test_time_bias_makes_attention_depend_on_elapsed_time(time_bias: bool) -> None:
    network = make_network()
    network.settings = replace(SETTINGS, time_bias=time_bias)
    with torch.no_grad():
        network.gap.weight.zero_()  # the other input that depends on time
    windows = random_windows()
    slower = replace(windows, time_BL=(windows.time_BL - 10**12) * 50 + 10**12)
    tower_VD, _ = encode_titles(network, titles())
    near, far = (encode_users(network, tower_VD, some, after_last_event(some)) for some in (windows, slower))
    assert torch.allclose(near, far, atol=TOLERANCE) is not time_bias


def test_without_text_titles_differ_only_by_id() -> None:
    torch.manual_seed(3)
    network = Network(replace(SETTINGS, use_text=False))
    known = titles()
    shuffled = replace(known, semantic_VE=known.semantic_VE.flip(0))
    assert torch.equal(encode_titles(network, known)[1], encode_titles(network, shuffled)[1])
    other = replace(known, id_VI=known.id_VI.flip(0))
    assert not torch.equal(encode_titles(network, known)[1], encode_titles(network, other)[1])


def test_log_expected_equals_log_expected_of_sampled_negatives() -> None:
    _, _, known = training_setup(20)
    drawn = sample_negatives(generator(), 64, known.launched_C, known.frequency_V, 0.5)
    torch.testing.assert_close(log_expected(64, known, 0.5, drawn[0]), drawn[1])


def test_naive_logq_also_corrects_the_positive_logit() -> None:
    network, optimizers, known = training_setup(20, replace(NETWORK, horizons=(0,)))
    windows, ids = windows_of([[1, 2, 3, 4], [5, 6, 7, 8]]), optimizers.rows.table_VI
    losses = {}
    for logq in ("corrected", "naive", "none"):
        settings = replace(OBJECTIVE, target_windows=(1,), logq=logq)
        batch = build_batch(windows, known, (0,), settings, generator())
        assert batch is not None
        losses[logq] = row_losses(network, batch, known, ids[batch.title_M])
        if logq == "naive":
            expected_N = log_expected(OBJECTIVE.negatives, known, OBJECTIVE.uniform_share, batch.rows.title_N)
    margin_N = losses["corrected"].expm1().log()  # inverse of softplus
    torch.testing.assert_close(losses["naive"], softplus(margin_N + expected_N))
    assert not torch.allclose(losses["none"], losses["corrected"])


@pytest.mark.parametrize("updates", [True, False])
def test_replay_updates_ids_only_if_enabled(updates: bool) -> None:
    network, optimizers, known = training_setup(20)
    before_VI = optimizers.rows.table_VI.clone()
    settings = replace(OBJECTIVE, replay_updates_ids=updates, negatives=1, id_mask=0.0)
    train_step(network, optimizers, known, windows_of([[1, 2, 3], [7, 8, 9]]), settings, generator(), new_windows=1)
    changed_V = (optimizers.rows.table_VI != before_VI).any(1)
    assert bool(changed_V[[1, 2, 3]].all())
    assert bool(changed_V[[7, 8]].any()) is updates


def test_cropped_replay_starts_anywhere_in_first_half() -> None:
    starts = set()
    model = SequenceModel(replace(SEQUENCE, crop_replayed=True), seed=1)
    for rows in ([0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]):
        model.add_to_replay(history(rows, f"u{rows[0]}"), len(rows))
    for span in model._sample_replay(200):
        assert span.stop == 6
        assert list(span.events) == list(range(span.start + span.truncated, 6))
        assert span.truncated is (span.start > 0)
        starts.add(span.start)
    assert starts == {0, 1, 2, 3}
    assert learn_last_events(model, [history([1, 2, 3])], catalog()) is not None


class MixedModule(nn.Module):
    """A linear layer, an embedding table and a layer norm: only the first has a matrix for Muon."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.linear, self.table, self.norm = nn.Linear(6, 4), nn.Embedding(3, 4), nn.LayerNorm(4)


def set_random_grads(module: nn.Module, step: int) -> None:
    g = torch.Generator().manual_seed(step)
    for p in module.parameters():
        p.grad = torch.randn(p.shape, generator=g)


MUON = OptimSettings(matrix_optimizer="muon")


def test_muon_updates_linear_matrices_and_adamw_the_rest() -> None:
    module, reference, plain = MixedModule(), MixedModule(), MixedModule()
    mixed, adamw = DenseOptimizer(module, MUON), DenseOptimizer(plain, OptimSettings())
    muon = torch.optim.Muon(
        [reference.linear.weight], lr=0.02, weight_decay=0.01, momentum=0.95, nesterov=True, ns_steps=5
    )
    for step in range(5):
        for each in (module, reference, plain):
            set_random_grads(each, step)
        mixed.step()
        adamw.step()
        muon.step()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(module.linear.weight, reference.linear.weight)
    assert torch.equal(module.table.weight, plain.table.weight)
    assert torch.equal(module.linear.bias, plain.linear.bias)
    assert not torch.equal(module.linear.weight, plain.linear.weight)


def test_muon_resumes_exactly_after_restart() -> None:
    module, resumed = MixedModule(), MixedModule()
    first, second = DenseOptimizer(module, MUON), DenseOptimizer(resumed, MUON)
    set_random_grads(module, 0)
    first.step()
    resumed.load_state_dict(module.state_dict())
    second.load_state_dict(first.state_dict())
    for one, optimizer in ((module, first), (resumed, second)):
        set_random_grads(one, 1)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), resumed.parameters(), strict=True))


def test_checkpoint_without_a_setting_counts_as_made_with_its_default() -> None:
    stored: dict[str, Any] = json.loads(json.dumps(asdict(LearnerSettings())))
    del stored["sequence"]["optim"]["matrix_optimizer"], stored["sequence"]["objective"]["logq"]
    check_checkpoint_settings({"settings": stored}, LearnerSettings(), "here")
    check_checkpoint_settings({}, LearnerSettings(), "here")
    stored["seed"] = 7
    with pytest.raises(SettingsError, match="seed"):
        check_checkpoint_settings({"settings": stored}, LearnerSettings(), "here")
