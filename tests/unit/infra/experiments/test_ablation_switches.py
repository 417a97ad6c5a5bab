"""What the ablations switch off or over does what its name says; the defaults are tested elsewhere."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from infra.errors import SettingsError
from infra.run.learn import check_settings
from model.learner import LearnerSettings
from model.sequence.model import SequenceModel
from model.sequence.network import Network, encode_users, title_table
from model.sequence.objective import batch_of, log_expected, row_losses, sample_negatives, train_step
from model.sequence.optimizers import DenseOptimiser, OptimSettings
from tests.support.learner import SEQUENCE
from tests.support.network import SETTINGS, a_network, later, some_windows, titles
from tests.support.objective import SHAPE, WANTED, generator, learner, windows_of
from tests.support.sequence import catalog, history
from tests.support.sequence import learn as learn_sequence

NEARLY = 1e-5


@pytest.mark.parametrize("time_bias", [True, False])
def test_without_the_time_bias_attention_does_not_know_how_long_ago_things_were(time_bias: bool) -> None:
    network = a_network()
    network.settings = replace(SETTINGS, time_bias=time_bias)
    with torch.no_grad():
        network.gap.weight.zero_()  # the other way in which time comes in
    windows = some_windows()
    slower = replace(windows, time_BL=(windows.time_BL - 10**12) * 50 + 10**12)
    tower_VD, _ = title_table(network, titles())
    near, far = (encode_users(network, tower_VD, some, later(some)) for some in (windows, slower))
    assert torch.allclose(near, far, atol=NEARLY) is not time_bias


def test_without_texts_titles_differ_by_their_ids_alone() -> None:
    torch.manual_seed(3)
    network = Network(replace(SETTINGS, semantic=False))
    known = titles()
    shuffled = replace(known, semantic_VS=known.semantic_VS.flip(0))
    assert torch.equal(title_table(network, known)[1], title_table(network, shuffled)[1])
    other = replace(known, id_VE=known.id_VE.flip(0))
    assert not torch.equal(title_table(network, known)[1], title_table(network, other)[1])


def test_what_is_expected_of_a_title_is_what_its_draw_would_have_said() -> None:
    _, _, known = learner(20)
    drawn = sample_negatives(generator(), 64, known.launched_M, known.frequency_V, 0.5)
    torch.testing.assert_close(log_expected(64, known, 0.5, drawn[0]), drawn[1])


def test_the_naive_correction_takes_the_positives_expectation_from_its_logit_too() -> None:
    network, optimisers, known = learner(20, replace(SHAPE, horizons=(0,)))
    windows, ids = windows_of([[1, 2, 3, 4], [5, 6, 7, 8]]), optimisers.rows.table_VE
    losses = {}
    for logq in ("corrected", "naive", "none"):
        settings = replace(WANTED, windows=(1,), logq=logq)
        batch = batch_of(windows, known, (0,), settings, generator())
        assert batch is not None
        losses[logq] = row_losses(network, batch, known, ids[batch.title_U])
        if logq == "naive":
            expected_N = log_expected(WANTED.negatives, known, WANTED.uniform, batch.rows.title_N)
    margin_N = losses["corrected"].expm1().log()  # softplus backwards
    torch.testing.assert_close(losses["naive"], softplus(margin_N + expected_N))
    assert not torch.allclose(losses["none"], losses["corrected"])


@pytest.mark.parametrize("moved", [True, False])
def test_replayed_windows_leave_the_id_rows_of_their_titles_alone_where_that_is_set(moved: bool) -> None:
    network, optimisers, known = learner(20)
    before_VE = optimisers.rows.table_VE.clone()
    settings = replace(WANTED, replayed_ids=moved, negatives=1, id_mask=0.0)
    train_step(network, optimisers, known, windows_of([[1, 2, 3], [7, 8, 9]]), settings, generator(), fresh=1)
    changed_V = (optimisers.rows.table_VE != before_VE).any(1)
    assert bool(changed_V[[1, 2, 3]].all())
    assert bool(changed_V[[7, 8]].any()) is moved


def test_replayed_windows_begin_anywhere_in_their_first_half_where_that_is_set() -> None:
    begun = set()
    model = SequenceModel(replace(SEQUENCE, shortened=True), seed=1)
    for rows in ([0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]):
        model.keep(history(rows, f"u{rows[0]}"), len(rows))
    for span in model._replayed(200):
        assert span.stop == 6
        assert list(span.events) == list(range(span.start + span.cut, 6))
        assert span.cut is (span.start > 0)
        begun.add(span.start)
    assert begun == {0, 1, 2, 3}
    assert learn_sequence(model, [history([1, 2, 3])], catalog()) is not None


class Mixed(nn.Module):
    """A linear layer's matrix, a table that is none, and gains."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.linear, self.table, self.norm = nn.Linear(6, 4), nn.Embedding(3, 4), nn.LayerNorm(4)


def give_grads(module: nn.Module, step: int) -> None:
    g = torch.Generator().manual_seed(step)
    for p in module.parameters():
        p.grad = torch.randn(p.shape, generator=g)


MUON = OptimSettings(matrices="muon")


def test_muon_moves_the_matrices_of_linear_layers_and_adamw_the_rest() -> None:
    module, rival, plain = Mixed(), Mixed(), Mixed()
    ours, usual = DenseOptimiser(module, MUON), DenseOptimiser(plain, OptimSettings())
    muon = torch.optim.Muon([rival.linear.weight], lr=0.02, weight_decay=0.01, momentum=0.95, nesterov=True, ns_steps=5)
    for step in range(5):
        for one in (module, rival, plain):
            give_grads(one, step)
        ours.step()
        usual.step()
        muon.step()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(module.linear.weight, rival.linear.weight)
    assert torch.equal(module.table.weight, plain.table.weight)
    assert torch.equal(module.linear.bias, plain.linear.bias)
    assert not torch.equal(module.linear.weight, plain.linear.weight)


def test_a_restart_repeats_muons_steps() -> None:
    module, again = Mixed(), Mixed()
    first, second = DenseOptimiser(module, MUON), DenseOptimiser(again, MUON)
    give_grads(module, 0)
    first.step()
    again.load_state_dict(module.state_dict())
    second.load_state_dict(first.state_dict())
    for one, optimiser in ((module, first), (again, second)):
        give_grads(one, 1)
        optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))


def test_a_checkpoint_from_before_a_setting_existed_was_made_with_its_default() -> None:
    made: dict[str, Any] = json.loads(json.dumps(asdict(LearnerSettings())))
    del made["sequence"]["optim"]["matrices"], made["sequence"]["objective"]["logq"]
    check_settings({"settings": made}, LearnerSettings(), "here")
    check_settings({}, LearnerSettings(), "here")
    made["seed"] = 7
    with pytest.raises(SettingsError, match="seed"):
        check_settings({"settings": made}, LearnerSettings(), "here")
