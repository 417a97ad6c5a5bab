"""The optimisers: rows that are hit and rows that are not, steps that are refused, restarts."""

from typing import Any

import torch
from torch import Tensor, nn

from model.sequence.optimizers import WARM_STEPS, DenseOptimiser, OptimSettings, RowwiseAdagrad

SETTINGS = OptimSettings(lr=0.01, row_lr=0.3, row_decay=0.9, ema=0.9, explodes=5.0)


def generator(seed: int = 11) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_rows_follow_the_written_rule() -> None:
    rows = RowwiseAdagrad(9, 3, SETTINGS, generator())
    table, squares = rows.table_VE.double().numpy().copy(), rows.squares_V.double().numpy().copy()
    g = generator(12)
    for named in ([0, 4, 7], [4], [8, 4]):
        grad_UE = torch.randn(len(named), 3, generator=g)
        rows.update(torch.tensor(named), grad_UE)
        for row, grad in zip(named, grad_UE.double().numpy(), strict=True):
            squares[row] = 0.9 * squares[row] + (grad**2).mean()
            table[row] -= 0.3 * grad / squares[row] ** 0.5
    torch.testing.assert_close(rows.table_VE.double(), torch.from_numpy(table), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rows.squares_V.double(), torch.from_numpy(squares), rtol=1e-5, atol=1e-6)


def test_rows_that_are_not_named_keep_every_bit() -> None:
    rows = RowwiseAdagrad(50, 4, SETTINGS, generator())
    table_VE, squares_V = rows.table_VE.clone(), rows.squares_V.clone()
    rows.update(torch.tensor([3, 31]), torch.randn(2, 4))
    others = torch.tensor([v for v in range(50) if v not in (3, 31)])
    assert torch.equal(rows.table_VE[others], table_VE[others])
    assert torch.equal(rows.squares_V[others], squares_V[others])
    assert not torch.equal(rows.table_VE[[3, 31]], table_VE[[3, 31]])


def test_a_row_without_a_gradient_does_not_move() -> None:
    rows = RowwiseAdagrad(4, 3, SETTINGS, generator())
    before_VE = rows.table_VE.clone()
    rows.update(torch.tensor([1, 2]), torch.zeros(2, 3))
    assert torch.equal(rows.table_VE, before_VE)


def test_a_row_hit_ever_again_goes_on_learning() -> None:
    rows = RowwiseAdagrad(1, 2, SETTINGS, generator())
    for _ in range(500):
        rows.update(torch.tensor([0]), torch.ones(1, 2))
    before = float(rows.table_VE[0, 0])
    rows.update(torch.tensor([0]), torch.ones(1, 2))
    # The sum of squares settles at 1 / (1 - 0.9), so a step is 0.3 * sqrt(0.1); without decay it would be 0.013.
    torch.testing.assert_close(before - float(rows.table_VE[0, 0]), 0.3 * 0.1**0.5, rtol=1e-3, atol=0)


def test_a_row_given_to_another_title_forgets_and_a_grown_table_forgets_nothing() -> None:
    rows = RowwiseAdagrad(4, 3, SETTINGS, generator())
    rows.update(torch.tensor([1, 2]), torch.ones(2, 3))
    learned_VE = rows.table_VE.clone()
    rows.grow(6, generator())
    assert rows.table_VE.shape == (6, 3)
    assert torch.equal(rows.table_VE[:4], learned_VE)
    rows.reset(torch.tensor([2]), generator())
    assert rows.squares_V.tolist() == [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert torch.equal(rows.table_VE[:2], learned_VE[:2])
    assert not torch.equal(rows.table_VE[2], learned_VE[2])


def a_module() -> nn.Linear:
    torch.manual_seed(13)
    return nn.Linear(5, 3)


def set_grads(module: nn.Module, step: int, scale: float = 1.0) -> None:
    g = generator(step)
    for p in module.parameters():
        p.grad = torch.randn(p.shape, generator=g) * scale


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_accepted_steps_are_adamw_with_no_decay_on_vectors() -> None:
    module, rival = a_module(), a_module()
    ours = DenseOptimiser(module, SETTINGS)
    groups: list[dict[str, Any]] = [{"params": [rival.weight]}, {"params": [rival.bias], "weight_decay": 0.0}]
    theirs = torch.optim.AdamW(groups, lr=0.01, weight_decay=0.01)
    for step in range(30):
        set_grads(module, step)
        set_grads(rival, step)
        assert ours.accepts()
        ours.step()
        theirs.step()
    torch.testing.assert_close(module.weight, rival.weight)
    torch.testing.assert_close(module.bias, rival.bias)


def test_the_published_average_forgets_the_first_weights_and_then_moves_slowly() -> None:
    module = a_module()
    optimiser = DenseOptimiser(module, SETTINGS)
    average = module.weight.detach().clone().double()
    for step in range(100):
        set_grads(module, step)
        optimiser.accepts()
        optimiser.step()
        keep = min(0.9, (step + 1) / (step + 11))
        average = keep * average + (1 - keep) * module.weight.detach().double()
        torch.testing.assert_close(optimiser.average["weight"].double(), average, rtol=1e-4, atol=1e-5)


def test_a_gradient_that_is_not_finite_is_refused_and_counted() -> None:
    module = a_module()
    optimiser = DenseOptimiser(module, SETTINGS)
    for bad in (float("nan"), float("inf")):
        set_grads(module, 0)
        assert module.weight.grad is not None
        module.weight.grad[1, 2] = bad
        assert not optimiser.accepts()
    set_grads(module, 1)
    assert optimiser.accepts()
    assert (optimiser.steps, optimiser.skipped) == (3, 2)


def test_an_exploding_gradient_is_refused_until_it_has_become_usual() -> None:
    module = a_module()
    optimiser = DenseOptimiser(module, SETTINGS)
    for step in range(WARM_STEPS + 10):
        set_grads(module, step)
        assert optimiser.accepts()
    refused = 0
    for step in range(300):
        set_grads(module, step, scale=40.0)
        refused += not optimiser.accepts()
    assert 5 < refused < 100  # growing by 8 % a step from 1, the limit of 5 meets 40 after some 27
    assert optimiser.skipped == refused
    set_grads(module, 999, scale=40.0)
    assert optimiser.accepts()


def test_a_restart_repeats_every_bit() -> None:
    module = a_module()
    first = DenseOptimiser(module, SETTINGS)
    for step in range(25):
        set_grads(module, step)
        first.accepts()
        first.step()
    again_module = a_module()
    again_module.load_state_dict(module.state_dict())
    again = DenseOptimiser(again_module, SETTINGS)
    again.load_state_dict(first.state_dict())
    for step in range(25, 40):
        for m, optimiser in ((module, first), (again_module, again)):
            set_grads(m, step, scale=1000.0 if step == 30 else 1.0)
            if optimiser.accepts():
                optimiser.step()
    assert same(weights(module), weights(again_module))
    assert same(list(first.average.values()), list(again.average.values()))
    assert (first.steps, first.skipped, first.usual) == (again.steps, again.skipped, again.usual)
    assert first.skipped == 1
