"""The objective: what is asked, what is drawn, what is learned."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.sequence.network import (
    EARLIER,
    UNKNOWN,
    encode_users,
    title_table,
)
from model.sequence.objective import ObjectiveSettings, batch_of, row_losses, rows_of, sample_negatives, train_step
from tests.support.objective import SHAPE, WANTED, generator, learner, windows_of


def test_negatives_are_drawn_as_often_as_their_expectation_says() -> None:
    launched_M = torch.tensor([2, 3, 5, 7, 8])
    frequency_V = torch.tensor([9.0, 9.0, 8.0, 0.0, 9.0, 1.0, 9.0, 1.0, 0.0])  # of what is not launched: ignored
    title_J, log_expected_J = sample_negatives(generator(), 100_000, launched_M, frequency_V, uniform=0.25)
    for title, expected in ((2, 5000 + 60_000), (3, 5000), (5, 5000 + 7500), (7, 5000 + 7500), (8, 5000)):
        drawn_J = title_J == title
        torch.testing.assert_close(
            log_expected_J[drawn_J].exp().mean(), torch.tensor(float(expected)), rtol=1e-4, atol=0
        )
        assert int(drawn_J.sum()) == pytest.approx(expected, rel=0.06)  # four standard errors of 5000 draws


@pytest.mark.parametrize("frequency_V", [None, torch.zeros(9)])
def test_without_frequencies_every_launched_title_is_as_likely(frequency_V: Tensor | None) -> None:
    title_J, log_expected_J = sample_negatives(generator(), 60, torch.tensor([4, 6, 8]), frequency_V, uniform=0.5)
    assert set(title_J.tolist()) == {4, 6, 8}
    torch.testing.assert_close(log_expected_J.exp(), torch.full((60,), 20.0))


def test_each_trained_event_is_asked_for_at_horizon_0_and_from_further_back() -> None:
    windows = windows_of([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]])
    windows.weight_BL[0] = 0.0
    windows.weight_BL[0, 5] = 2.0
    windows.length_B[1] = 4
    windows.title_BL[1, 1] = -1  # unknown to the catalogue: a token, no target
    windows.action_BL[:] = windows.title_BL + 20
    rows = rows_of(windows, (0, 3), replace(WANTED, windows=(1, 1), delayed=1.0), generator())
    got = list(zip(*(x.tolist() for x in vars(rows).values()), strict=True))
    assert got == [
        (0, 5, 0, 6, 2.0, 26),
        (1, 0, 0, 7, 1.0, 27),
        (1, 2, 0, 9, 1.0, 29),
        (1, 3, 0, 10, 1.0, 30),
        (0, 2, 1, 6, 2.0, 26),  # three events earlier
        (1, 0, 1, 10, 1.0, 30),
    ]


def test_a_horizons_window_is_drawn_with_weights_that_halve() -> None:
    windows = windows_of([list(range(12))] * 4000)
    windows.weight_BL[:, :11] = 0.0
    rows = rows_of(windows, (0, 3), replace(WANTED, half_life=1.0, delayed=1.0), generator())
    token_N = rows.token_N[rows.horizon_N == 1]
    share = torch.bincount(8 - token_N, minlength=4) / 4000
    torch.testing.assert_close(share, torch.tensor([8.0, 4.0, 2.0, 1.0]) / 15, rtol=0, atol=0.032)  # 4 standard errors


def test_titles_are_gathered_once_and_meant_everywhere() -> None:
    _, _, titles = learner(50)
    windows = replace(windows_of([[4, 9, -1, 4], [9, 30, 31, 32]]), cut_B=torch.tensor([False, True]))
    batch = batch_of(windows, titles, SHAPE.horizons, WANTED, generator())
    assert batch is not None
    assert batch.title_U.tolist() == sorted(set(batch.title_U.tolist()))
    assert batch.title_U[batch.positive_N].tolist() == batch.rows.title_N.tolist()
    place = batch.packed.slots(torch.tensor([0, 0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 2, 3, 0, 1, 3]))
    local = batch.packed.title_RC.flatten()[place]
    meant = [int(batch.title_U[i]) if i >= 0 else i for i in local.tolist()]
    assert meant == [UNKNOWN, 4, 9, UNKNOWN, EARLIER, 9, 31]
    counted = batch.title_U[batch.negative_J]
    assert len(counted) == WANTED.negatives
    assert set(counted.tolist()) <= set(range(50))


def test_the_sampled_gradient_is_that_of_the_full_softmax() -> None:
    """By enumeration: with very many draws, for a popular and for a rare positive."""
    network, _, titles = learner(40, replace(SHAPE, horizons=(0,)))
    titles = replace(titles, frequency_V=1 / (1 + torch.arange(40.0)) ** 1.5)
    many = ObjectiveSettings(negatives=200_000, windows=(1,), id_mask=0.0)
    for positive in (0, 39):
        windows = windows_of([[3, 5, positive]])
        windows.weight_BL[0, :2] = 0.0
        batch = batch_of(windows, titles, (0,), many, generator())
        assert batch is not None
        id_UE = titles.id_VE[batch.title_U].requires_grad_()
        (got_UE,) = torch.autograd.grad(row_losses(network, batch, titles, id_UE).sum(), id_UE)
        hidden_XD = network(network.title_vectors(titles.semantic_VS, id_UE, titles.count_V), batch.packed)
        query_NP = network.query(hidden_XD[2:3], torch.zeros(1, dtype=torch.int64)) * network.horizon_head.scale
        e_VP = network.candidates(network.title_vectors(titles.semantic_VS, id_UE, titles.count_V))
        full = -(query_NP @ e_VP.T).log_softmax(1)[0, positive]
        (want_UE,) = torch.autograd.grad(full, id_UE)
        assert batch.title_U.tolist() == list(range(40))
        assert float((got_UE - want_UE).norm() / want_UE.norm()) < 0.02


def test_ids_are_hidden_at_their_rate_and_a_hidden_id_learns_nothing() -> None:
    network, _, titles = learner(400)
    batch = batch_of(windows_of([[1, 2, 3]]), titles, SHAPE.horizons, replace(WANTED, negatives=4000), generator())
    assert batch is not None
    assert float(batch.mask_U.float().mean()) == pytest.approx(0.1, abs=0.06)
    id_UE = titles.id_VE[batch.title_U].requires_grad_()
    (grad_UE,) = torch.autograd.grad(row_losses(network, batch, titles, id_UE).sum(), id_UE)
    assert not grad_UE[batch.mask_U].any()
    assert grad_UE[~batch.mask_U].any(1).all()


def test_nothing_to_learn_is_no_step() -> None:
    network, optimisers, titles = learner(20)
    for windows in (windows_of([[1, 2, 3]], weight=0.0), windows_of([[-1, -1]])):
        report = train_step(network, optimisers, titles, windows, WANTED, generator())
        assert (report.positions, report.skipped) == (0, False)
    assert optimisers.dense.steps == 0


def test_a_step_touches_the_rows_it_names_and_no_other_bit() -> None:
    network, optimisers, titles = learner(500)
    before_VE = titles.id_VE.clone()
    batch = batch_of(windows_of([[1, 2, 3, 4]]), titles, SHAPE.horizons, WANTED, generator(7))
    assert batch is not None
    train_step(network, optimisers, titles, windows_of([[1, 2, 3, 4]]), WANTED, generator(7))
    moved_V = (titles.id_VE != before_VE).any(1)
    named_V = torch.zeros(500, dtype=torch.bool).index_fill(0, batch.title_U, True)
    assert moved_V.any()
    assert not moved_V[~named_V].any()


def test_a_step_that_is_not_finite_changes_no_weight_and_is_reported() -> None:
    network, optimisers, titles = learner(30)
    titles.semantic_VS[2] = float("nan")
    before = [p.detach().clone() for p in network.parameters()]
    table_VE = titles.id_VE.clone()
    report = train_step(network, optimisers, titles, windows_of([[1, 2, 3]]), WANTED, generator())
    assert report.skipped
    assert optimisers.dense.skipped == 1
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert torch.equal(table_VE, titles.id_VE)


def test_training_repeats_bit_for_bit_through_a_restart() -> None:
    windows = windows_of(torch.randint(0, 60, (6, 12), generator=generator(5)).tolist())
    network, optimisers, titles = learner(60)
    draws = generator(6)
    for _ in range(4):
        train_step(network, optimisers, titles, windows, WANTED, draws)
    again, again_optimisers, _ = learner(60)
    again.load_state_dict(network.state_dict())
    again_optimisers.load_state_dict(optimisers.state_dict())
    again_titles = replace(titles, id_VE=again_optimisers.rows.table_VE)
    again_draws = generator(0)
    again_draws.set_state(draws.get_state())
    for _ in range(4):
        one = train_step(network, optimisers, titles, windows, WANTED, draws)
        other = train_step(again, again_optimisers, again_titles, windows, WANTED, again_draws)
        assert one == other
    assert torch.equal(titles.id_VE, again_titles.id_VE)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_viewers_of_a_checkerboard_are_shown_the_one_title_withheld_from_them() -> None:
    """Even viewers watch even titles, odd ones odd; of its own colour, each has seen all titles but its own."""
    n = 16
    shape = replace(SHAPE, horizons=(0, 1), dropout=0.0)
    network, optimisers, titles = learner(n, shape, lr=5e-3)
    titles = replace(titles, semantic_VS=torch.zeros(n, SHAPE.d_text))  # no text: the ids must carry it
    wanted = ObjectiveSettings(negatives=64, windows=(1, 2), id_mask=0.05)
    draws = generator(8)
    seen = torch.tensor([[t for t in range(n) if t % 2 == user % 2 and t != user] for user in range(n)])
    for _ in range(150):
        watched = seen.gather(1, torch.randint(0, seen.shape[1], (n, 12), generator=draws))  # again and again
        report = train_step(network, optimisers, titles, windows_of(watched.tolist()), wanted, draws)
    assert not report.skipped
    network.load_state_dict(optimisers.dense.average)
    tower_VD, e_VP = title_table(network, titles)
    windows = windows_of(seen.tolist())
    hidden_BD = encode_users(network, tower_VD, windows, windows.time_BL[:, -1] + 60_000)
    for horizon in range(2):
        score_BV = network.query(hidden_BD, torch.full((n,), horizon)) @ e_VP.T
        score_BV = score_BV.scatter(1, seen, -9.0)
        assert score_BV.argmax(1).tolist() == list(range(n))
