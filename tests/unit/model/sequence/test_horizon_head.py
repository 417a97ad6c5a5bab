"""The horizon head: unit vectors, bounded temperature, one query per horizon."""

import pytest
import torch

from model.sequence.horizon_head import HorizonHead


def make_head() -> HorizonHead:
    torch.manual_seed(3)
    return HorizonHead(width=7, d_out=5, horizons=3, temperature=0.1, min_temperature=0.02)


def test_queries_and_candidates_have_unit_length() -> None:
    horizon_head, x_ND = make_head(), torch.randn(11, 7) * 30
    torch.testing.assert_close(horizon_head.query(x_ND, torch.arange(11) % 3).norm(dim=1), torch.ones(11))
    torch.testing.assert_close(horizon_head.candidates(x_ND).norm(dim=1), torch.ones(11))


def test_untrained_horizons_give_equal_queries() -> None:
    horizon_head, x_ND = make_head(), torch.randn(4, 7)
    query_NP = [horizon_head.query(x_ND, torch.full((4,), horizon)) for horizon in range(3)]
    assert torch.equal(query_NP[0], query_NP[1])
    assert torch.equal(query_NP[0], query_NP[2])


def test_horizons_have_independent_parameters() -> None:
    horizon_head, x_ND = make_head(), torch.randn(4, 7)
    before = horizon_head.query(x_ND, torch.zeros(4, dtype=torch.int64))
    with torch.no_grad():
        horizon_head.gain.weight[2] += torch.randn(7)
        horizon_head.shift.weight[2] += torch.randn(7)
    assert torch.equal(before, horizon_head.query(x_ND, torch.zeros(4, dtype=torch.int64)))
    assert not torch.allclose(before, horizon_head.query(x_ND, torch.full((4,), 2)))


def test_temperature_starts_at_its_setting_and_is_bounded() -> None:
    horizon_head = make_head()
    assert float(horizon_head.scale.detach()) == pytest.approx(10.0)
    with torch.no_grad():
        horizon_head.log_scale.fill_(99.0)
    assert float(horizon_head.scale.detach()) == pytest.approx(50.0)
    with torch.no_grad():
        horizon_head.log_scale.fill_(-99.0)
    assert float(horizon_head.scale.detach()) == pytest.approx(1.0)
