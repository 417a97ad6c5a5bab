"""The optimizers: row-wise updates, weight averaging, skipped steps, restored states."""

from typing import Any

import torch
from torch import Tensor, nn

from model.sequence.optimizers import WARMUP_STEPS, DenseOptimizer, RowwiseAdagrad
from model.settings import OptimSettings

SETTINGS = OptimSettings(lr=0.01, row_lr=0.3, row_decay=0.9, ema=0.9, max_norm_ratio=5.0)


def generator(seed: int = 11) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_rowwise_adagrad_equals_formula() -> None:
    rows = RowwiseAdagrad(9, 3, SETTINGS, generator())
    table, squares = rows.table_VI.double().numpy().copy(), rows.squares_V.double().numpy().copy()
    g = generator(12)
    for named in ([0, 4, 7], [4], [8, 4]):
        grad_MI = torch.randn(len(named), 3, generator=g)
        rows.update(torch.tensor(named), grad_MI)
        for row, grad in zip(named, grad_MI.double().numpy(), strict=True):
            squares[row] = 0.9 * squares[row] + (grad**2).mean()
            table[row] -= 0.3 * grad / squares[row] ** 0.5
    torch.testing.assert_close(rows.table_VI.double(), torch.from_numpy(table), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rows.squares_V.double(), torch.from_numpy(squares), rtol=1e-5, atol=1e-6)


def test_update_leaves_other_rows_unchanged() -> None:
    rows = RowwiseAdagrad(50, 4, SETTINGS, generator())
    table_VI, squares_V = rows.table_VI.clone(), rows.squares_V.clone()
    rows.update(torch.tensor([3, 31]), torch.randn(2, 4))
    others = torch.tensor([v for v in range(50) if v not in (3, 31)])
    assert torch.equal(rows.table_VI[others], table_VI[others])
    assert torch.equal(rows.squares_V[others], squares_V[others])
    assert not torch.equal(rows.table_VI[[3, 31]], table_VI[[3, 31]])


def test_row_with_zero_gradient_does_not_move() -> None:
    rows = RowwiseAdagrad(4, 3, SETTINGS, generator())
    before_VI = rows.table_VI.clone()
    rows.update(torch.tensor([1, 2]), torch.zeros(2, 3))
    assert torch.equal(rows.table_VI, before_VI)


def test_row_decay_keeps_frequent_rows_learning() -> None:
    rows = RowwiseAdagrad(1, 2, SETTINGS, generator())
    for _ in range(500):
        rows.update(torch.tensor([0]), torch.ones(1, 2))
    before = float(rows.table_VI[0, 0])
    rows.update(torch.tensor([0]), torch.ones(1, 2))
    # The sum of squares settles at 1 / (1 - 0.9), so a step is 0.3 * sqrt(0.1); without decay it would be 0.013.
    torch.testing.assert_close(before - float(rows.table_VI[0, 0]), 0.3 * 0.1**0.5, rtol=1e-3, atol=0)


def test_reset_clears_a_row_and_grow_keeps_all_rows() -> None:
    rows = RowwiseAdagrad(4, 3, SETTINGS, generator())
    rows.update(torch.tensor([1, 2]), torch.ones(2, 3))
    learned_VI = rows.table_VI.clone()
    rows.grow(6, generator())
    assert rows.table_VI.shape == (6, 3)
    assert torch.equal(rows.table_VI[:4], learned_VI)
    rows.reset(torch.tensor([2]), generator())
    assert rows.squares_V.tolist() == [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert torch.equal(rows.table_VI[:2], learned_VI[:2])
    assert not torch.equal(rows.table_VI[2], learned_VI[2])


def make_module() -> nn.Linear:
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


def test_dense_steps_equal_adamw_without_decay_on_vectors() -> None:
    module, rival = make_module(), make_module()
    ours = DenseOptimizer(module, SETTINGS)
    groups: list[dict[str, Any]] = [{"params": [rival.weight]}, {"params": [rival.bias], "weight_decay": 0.0}]
    theirs = torch.optim.AdamW(groups, lr=0.01, weight_decay=0.01)
    for step in range(30):
        set_grads(module, step)
        set_grads(rival, step)
        assert ours.accept_step()
        ours.step()
        theirs.step()
    torch.testing.assert_close(module.weight, rival.weight)
    torch.testing.assert_close(module.bias, rival.bias)


def test_average_starts_fast_and_converges_to_ema() -> None:
    module = make_module()
    optimizer = DenseOptimizer(module, SETTINGS)
    average = module.weight.detach().clone().double()
    for step in range(100):
        set_grads(module, step)
        optimizer.accept_step()
        optimizer.step()
        keep = min(0.9, (step + 1) / (step + 11))
        average = keep * average + (1 - keep) * module.weight.detach().double()
        torch.testing.assert_close(optimizer.average["weight"].double(), average, rtol=1e-4, atol=1e-5)


def test_non_finite_gradient_is_skipped_and_counted() -> None:
    module = make_module()
    optimizer = DenseOptimizer(module, SETTINGS)
    for bad in (float("nan"), float("inf")):
        set_grads(module, 0)
        assert module.weight.grad is not None
        module.weight.grad[1, 2] = bad
        assert not optimizer.accept_step()
    set_grads(module, 1)
    assert optimizer.accept_step()
    assert (optimizer.steps, optimizer.skipped) == (3, 2)


def test_exploding_gradient_is_skipped_until_it_is_typical() -> None:
    module = make_module()
    optimizer = DenseOptimizer(module, SETTINGS)
    for step in range(WARMUP_STEPS + 10):
        set_grads(module, step)
        assert optimizer.accept_step()
    skipped = 0
    for step in range(300):
        set_grads(module, step, scale=40.0)
        skipped += not optimizer.accept_step()
    assert 5 < skipped < 100  # the typical norm grows by 8 % per step from 1; 5 times the norm reaches 40 after some 27
    assert optimizer.skipped == skipped
    set_grads(module, 999, scale=40.0)
    assert optimizer.accept_step()


def test_restored_optimizer_repeats_every_bit() -> None:
    module = make_module()
    original = DenseOptimizer(module, SETTINGS)
    for step in range(25):
        set_grads(module, step)
        original.accept_step()
        original.step()
    restored_module = make_module()
    restored_module.load_state_dict(module.state_dict())
    restored = DenseOptimizer(restored_module, SETTINGS)
    restored.load_state_dict(original.state_dict())
    for step in range(25, 40):
        for m, optimizer in ((module, original), (restored_module, restored)):
            set_grads(m, step, scale=1000.0 if step == 30 else 1.0)
            if optimizer.accept_step():
                optimizer.step()
    assert same(weights(module), weights(restored_module))
    assert same(list(original.average.values()), list(restored.average.values()))
    control = [(one.steps, one.skipped, one.typical_norm) for one in (original, restored)]
    assert control[0] == control[1]
    assert original.skipped == 1


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
