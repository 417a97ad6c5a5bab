"""The training objective: loss rows, negatives, gradients and training steps."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.sequence.network import (
    TRUNCATED_START,
    UNKNOWN_TITLE,
    encode_titles,
    encode_users,
)
from model.sequence.objective import (
    build_batch,
    build_loss_rows,
    row_losses,
    sample_negatives,
    train_step,
)
from model.settings import ObjectiveSettings
from tests.support.objective import NETWORK, OBJECTIVE, generator, training_setup, windows_of


def test_negatives_match_their_expected_counts() -> None:
    launched_C = torch.tensor([2, 3, 5, 7, 8])
    frequency_V = torch.tensor(
        [9.0, 9.0, 8.0, 0.0, 9.0, 1.0, 9.0, 1.0, 0.0]
    )  # frequencies of unlaunched titles are ignored
    title_S, log_expected_S = sample_negatives(generator(), 100_000, launched_C, frequency_V, uniform_share=0.25)
    for title, expected in ((2, 5000 + 60_000), (3, 5000), (5, 5000 + 7500), (7, 5000 + 7500), (8, 5000)):
        drawn_S = title_S == title
        torch.testing.assert_close(
            log_expected_S[drawn_S].exp().mean(), torch.tensor(float(expected)), rtol=1e-4, atol=0
        )
        assert int(drawn_S.sum()) == pytest.approx(expected, rel=0.06)  # four standard errors of 5000 draws


@pytest.mark.parametrize("frequency_V", [None, torch.zeros(9)])
def test_without_frequencies_negatives_are_uniform(frequency_V: Tensor | None) -> None:
    title_S, log_expected_S = sample_negatives(generator(), 60, torch.tensor([4, 6, 8]), frequency_V, uniform_share=0.5)
    assert set(title_S.tolist()) == {4, 6, 8}
    torch.testing.assert_close(log_expected_S.exp(), torch.full((60,), 20.0))


def test_loss_rows_of_first_and_later_horizons() -> None:
    windows = windows_of([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]])
    windows.weight_BL[0] = 0.0
    windows.weight_BL[0, 5] = 2.0
    windows.length_B[1] = 4
    windows.title_BL[1, 1] = -1  # an unknown title: a token, not a target
    windows.action_BL[:] = windows.title_BL + 20
    rows = build_loss_rows(windows, (0, 3), replace(OBJECTIVE, target_windows=(1, 1), horizon_share=1.0), generator())
    got = list(zip(*(x.tolist() for x in vars(rows).values()), strict=True))
    assert got == [
        (0, 5, 0, 6, 2.0, 26),
        (1, 0, 0, 7, 1.0, 27),
        (1, 2, 0, 9, 1.0, 29),
        (1, 3, 0, 10, 1.0, 30),
        (0, 2, 1, 6, 2.0, 26),  # three events earlier
        (1, 0, 1, 10, 1.0, 30),
    ]


def test_horizon_offsets_follow_half_life_weights() -> None:
    windows = windows_of([list(range(12))] * 4000)
    windows.weight_BL[:, :11] = 0.0
    rows = build_loss_rows(windows, (0, 3), replace(OBJECTIVE, half_life=1.0, horizon_share=1.0), generator())
    token_N = rows.token_N[rows.horizon_N == 1]
    share = torch.bincount(8 - token_N, minlength=4) / 4000
    torch.testing.assert_close(share, torch.tensor([8.0, 4.0, 2.0, 1.0]) / 15, rtol=0, atol=0.032)  # 4 standard errors


def test_batch_indices_refer_to_distinct_titles() -> None:
    _, _, titles = training_setup(50)
    windows = replace(windows_of([[4, 9, -1, 4], [9, 30, 31, 32]]), truncated_B=torch.tensor([False, True]))
    batch = build_batch(windows, titles, NETWORK.horizons, OBJECTIVE, generator())
    assert batch is not None
    assert batch.title_M.tolist() == sorted(set(batch.title_M.tolist()))
    assert batch.title_M[batch.positive_N].tolist() == batch.rows.title_N.tolist()
    positions = batch.packed.positions(torch.tensor([0, 0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 2, 3, 0, 1, 3]))
    index_N = batch.packed.title_RT.flatten()[positions]
    rows = [int(batch.title_M[i]) if i >= 0 else i for i in index_N.tolist()]
    assert rows == [UNKNOWN_TITLE, 4, 9, UNKNOWN_TITLE, TRUNCATED_START, 9, 31]
    negatives = batch.title_M[batch.negative_S]
    assert len(negatives) == OBJECTIVE.negatives
    assert set(negatives.tolist()) <= set(range(50))


def test_sampled_gradient_converges_to_full_softmax() -> None:
    """With 200,000 negatives, for a popular and for a rare positive."""
    network, _, titles = training_setup(40, replace(NETWORK, horizons=(0,)))
    titles = replace(titles, frequency_V=1 / (1 + torch.arange(40.0)) ** 1.5)
    many = ObjectiveSettings(negatives=200_000, target_windows=(1,), id_mask=0.0)
    for positive in (0, 39):
        windows = windows_of([[3, 5, positive]])
        windows.weight_BL[0, :2] = 0.0
        batch = build_batch(windows, titles, (0,), many, generator())
        assert batch is not None
        id_MI = titles.id_VI[batch.title_M].requires_grad_()
        (got_MI,) = torch.autograd.grad(row_losses(network, batch, titles, id_MI).sum(), id_MI)
        hidden_XD = network(network.title_vectors(titles.semantic_VE, id_MI, titles.count_V), batch.packed)
        query_NP = network.query(hidden_XD[2:3], torch.zeros(1, dtype=torch.int64)) * network.horizon_head.scale
        e_VP = network.candidates(network.title_vectors(titles.semantic_VE, id_MI, titles.count_V))
        full = -(query_NP @ e_VP.T).log_softmax(1)[0, positive]
        (want_MI,) = torch.autograd.grad(full, id_MI)
        assert batch.title_M.tolist() == list(range(40))
        assert float((got_MI - want_MI).norm() / want_MI.norm()) < 0.02


def test_ids_are_masked_at_their_rate_and_get_no_gradient() -> None:
    network, _, titles = training_setup(400)
    batch = build_batch(
        windows_of([[1, 2, 3]]), titles, NETWORK.horizons, replace(OBJECTIVE, negatives=4000), generator()
    )
    assert batch is not None
    assert float(batch.mask_M.float().mean()) == pytest.approx(0.1, abs=0.06)
    id_MI = titles.id_VI[batch.title_M].requires_grad_()
    (grad_MI,) = torch.autograd.grad(row_losses(network, batch, titles, id_MI).sum(), id_MI)
    assert not grad_MI[batch.mask_M].any()
    assert grad_MI[~batch.mask_M].any(1).all()


def test_windows_without_targets_take_no_step() -> None:
    network, optimizers, titles = training_setup(20)
    for windows in (windows_of([[1, 2, 3]], weight=0.0), windows_of([[-1, -1]])):
        report = train_step(network, optimizers, titles, windows, OBJECTIVE, generator())
        assert (report.positions, report.skipped) == (0, False)
    assert optimizers.dense.steps == 0


def test_step_changes_only_the_id_rows_of_its_titles() -> None:
    network, optimizers, titles = training_setup(500)
    before_VI = titles.id_VI.clone()
    batch = build_batch(windows_of([[1, 2, 3, 4]]), titles, NETWORK.horizons, OBJECTIVE, generator(7))
    assert batch is not None
    train_step(network, optimizers, titles, windows_of([[1, 2, 3, 4]]), OBJECTIVE, generator(7))
    moved_V = (titles.id_VI != before_VI).any(1)
    in_batch_V = torch.zeros(500, dtype=torch.bool).index_fill(0, batch.title_M, True)
    assert moved_V.any()
    assert not moved_V[~in_batch_V].any()


def test_non_finite_step_changes_no_weight_and_is_reported() -> None:
    network, optimizers, titles = training_setup(30)
    titles.semantic_VE[2] = float("nan")
    before = [p.detach().clone() for p in network.parameters()]
    table_VI = titles.id_VI.clone()
    report = train_step(network, optimizers, titles, windows_of([[1, 2, 3]]), OBJECTIVE, generator())
    assert report.skipped
    assert optimizers.dense.skipped == 1
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert torch.equal(table_VI, titles.id_VI)


def test_restored_training_repeats_every_bit() -> None:
    windows = windows_of(torch.randint(0, 60, (6, 12), generator=generator(5)).tolist())
    network, optimizers, titles = training_setup(60)
    random = generator(6)
    for _ in range(4):
        train_step(network, optimizers, titles, windows, OBJECTIVE, random)
    restored, restored_optimizers, _ = training_setup(60)
    restored.load_state_dict(network.state_dict())
    restored_optimizers.load_state_dict(optimizers.state_dict())
    restored_titles = replace(titles, id_VI=restored_optimizers.rows.table_VI)
    restored_random = generator(0)
    restored_random.set_state(random.get_state())
    for _ in range(4):
        report = train_step(network, optimizers, titles, windows, OBJECTIVE, random)
        assert report == train_step(restored, restored_optimizers, restored_titles, windows, OBJECTIVE, restored_random)
    assert torch.equal(titles.id_VI, restored_titles.id_VI)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), restored.parameters(), strict=True))


@pytest.mark.learned
def test_checkerboard_users_get_their_held_out_title() -> None:
    """Users and titles of equal parity match; each user has seen all matching titles except the one of its number."""
    n = 16
    shape = replace(NETWORK, horizons=(0, 1), dropout=0.0)
    network, optimizers, titles = training_setup(n, shape, lr=5e-3)
    titles = replace(titles, semantic_VE=torch.zeros(n, NETWORK.d_text))  # no text: the ids must carry it
    objective = ObjectiveSettings(negatives=64, target_windows=(1, 2), id_mask=0.05)
    random = generator(8)
    seen = torch.tensor([[t for t in range(n) if t % 2 == user % 2 and t != user] for user in range(n)])
    for _ in range(150):
        history = seen.gather(1, torch.randint(0, seen.shape[1], (n, 12), generator=random))  # with repetitions
        report = train_step(network, optimizers, titles, windows_of(history.tolist()), objective, random)
    assert not report.skipped
    network.load_state_dict(optimizers.dense.average)
    tower_VD, e_VP = encode_titles(network, titles)
    windows = windows_of(seen.tolist())
    hidden_BD = encode_users(network, tower_VD, windows, windows.time_BL[:, -1] + 60_000)
    for horizon in range(2):
        score_BV = network.query(hidden_BD, torch.full((n,), horizon)) @ e_VP.T
        score_BV = score_BV.scatter(1, seen, -9.0)
        assert score_BV.argmax(1).tolist() == list(range(n))


def test_logq_none_leaves_the_negatives_uncorrected() -> None:
    network, optimizers, known = training_setup(20, replace(NETWORK, horizons=(0,)))
    windows, ids = windows_of([[1, 2, 3, 4], [5, 6, 7, 8]]), optimizers.rows.table_VI
    expected = {}
    for logq in ("corrected", "none"):
        settings = replace(OBJECTIVE, target_windows=(1,), logq=logq)
        batch = build_batch(windows, known, (0,), settings, generator())
        assert batch is not None
        assert bool(row_losses(network, batch, known, ids[batch.title_M]).isfinite().all())
        expected[logq] = batch.log_expected_S
    assert bool((expected["none"] == 0).all())
    assert bool((expected["corrected"] != 0).any())
