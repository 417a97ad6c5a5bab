"""The decoder: unit queries and candidates, one temperature, a query for each delay."""

import pytest
import torch

from model.sequence.horizon_head import HorizonHead


def a_decoder() -> HorizonHead:
    torch.manual_seed(3)
    return HorizonHead(width=7, d_out=5, horizons=3, temperature=0.1, coldest=0.02)


def test_queries_and_candidates_have_unit_length() -> None:
    horizon_head, x_ND = a_decoder(), torch.randn(11, 7) * 30
    torch.testing.assert_close(horizon_head.query(x_ND, torch.arange(11) % 3).norm(dim=1), torch.ones(11))
    torch.testing.assert_close(horizon_head.candidates(x_ND).norm(dim=1), torch.ones(11))


def test_every_delay_begins_as_the_next_event() -> None:
    horizon_head, x_ND = a_decoder(), torch.randn(4, 7)
    asked = [horizon_head.query(x_ND, torch.full((4,), horizon)) for horizon in range(3)]
    assert torch.equal(asked[0], asked[1])
    assert torch.equal(asked[0], asked[2])


def test_what_one_delay_learns_leaves_the_others_alone() -> None:
    horizon_head, x_ND = a_decoder(), torch.randn(4, 7)
    before = horizon_head.query(x_ND, torch.zeros(4, dtype=torch.int64))
    with torch.no_grad():
        horizon_head.stretch.weight[2] += torch.randn(7)
        horizon_head.shift.weight[2] += torch.randn(7)
    assert torch.equal(before, horizon_head.query(x_ND, torch.zeros(4, dtype=torch.int64)))
    assert not torch.allclose(before, horizon_head.query(x_ND, torch.full((4,), 2)))


def test_the_temperature_starts_where_it_was_set_and_stays_above_the_coldest() -> None:
    horizon_head = a_decoder()
    assert float(horizon_head.scale.detach()) == pytest.approx(10.0)
    with torch.no_grad():
        horizon_head.log_scale.fill_(99.0)
    assert float(horizon_head.scale.detach()) == pytest.approx(50.0)
    with torch.no_grad():
        horizon_head.log_scale.fill_(-99.0)
    assert float(horizon_head.scale.detach()) == pytest.approx(1.0)
