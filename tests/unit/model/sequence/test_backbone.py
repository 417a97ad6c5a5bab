"""The backbone: packing, time buckets, causality, and equality with a naive implementation."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, silu

from model.sequence.backbone import (
    MASKED_BUCKET,
    TIME_BUCKETS,
    Backbone,
    Block,
    PackedLayout,
    dropout,
    flat_positions,
    pack,
    pair_buckets,
    time_bucket,
)
from model.settings import PRESETS, BackboneSize

DIMS = BackboneSize(width=6, blocks=2, heads=3)
LENGTHS = np.array([3, 7, 1, 5, 2, 7, 4])


def make_backbone() -> Backbone:
    torch.manual_seed(5)
    backbone = Backbone(
        DIMS, max_distance=5
    )  # shorter than the longest window: distances beyond it share the last bias
    with torch.no_grad():
        for p in backbone.parameters():
            p.normal_(std=0.7)
    return backbone


def histories(lengths_B: np.ndarray) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Token vectors, event times and query times, one tensor per window."""
    g = torch.Generator().manual_seed(6)
    tokens = [torch.randn(n, DIMS.width, generator=g) for n in lengths_B]
    gaps = [(10 ** (torch.rand(n, generator=g) * 11)).long() for n in lengths_B]
    times = [gap.cumsum(0) + 10**12 for gap in gaps]
    query_times = [torch.cat([time[1:], time[-1:] + 5000]) for time in times]
    return tokens, times, query_times


def encode(backbone: Backbone, tokens: list[Tensor], times: list[Tensor], query_times: list[Tensor]) -> list[Tensor]:
    """Hidden states of each window, all windows packed into one pass."""
    lengths_B = np.array([len(t) for t in tokens])
    layout = pack(lengths_B)
    position_N = torch.from_numpy(flat_positions(layout.start_B, lengths_B))

    def pack_values(values: list[Tensor]) -> Tensor:
        flat = torch.cat(values)
        return flat.new_zeros(layout.rows * layout.capacity, *flat.shape[1:]).index_copy(0, position_N, flat)

    time_RT, query_time_RT = (pack_values(v).view(layout.rows, layout.capacity) for v in (times, query_times))
    token_RTD = pack_values(tokens).view(layout.rows, layout.capacity, -1)
    with torch.no_grad():
        hidden_XD = backbone(token_RTD, pair_buckets(layout, time_RT, query_time_RT)).flatten(0, 1)
    return list(hidden_XD[position_N].split(lengths_B.tolist()))


def naive_block(block: Block, x_TD: Tensor, time_T: Tensor, query_time_T: Tensor) -> Tensor:
    """One block on one window, token by token."""
    width, heads, n = x_TD.shape[1], block.heads, len(x_TD)
    h_TD = layer_norm(x_TD, (width,), block.norm.weight)
    q, k, v, g = (h_TD @ block.qkvg.weight.T).view(n, 4, heads, width // heads).unbind(1)
    out_TJO = torch.zeros(n, heads, width // heads)
    for i in range(n):
        for head in range(heads):
            score = torch.stack(
                [
                    q[i, head] @ k[j, head] / math.sqrt(width // heads)
                    + block.time[head, int(time_bucket(query_time_T[i] - time_T[j]))]
                    + block.distance[head, min(i - j, block.distance.shape[1] - 1)]
                    for j in range(i + 1)
                ]
            )
            out_TJO[i, head] = score.softmax(0) @ v[: i + 1, head]
    x_TD = x_TD + (out_TJO * silu(g)).flatten(1) @ block.out.weight.T
    a, b = (layer_norm(x_TD, (width,), block.ffn_norm.weight) @ block.ffn.weight.T).chunk(2, 1)
    return x_TD + (silu(a) * b) @ block.ffn_out.weight.T


def test_pack_gives_each_token_its_own_position_in_one_row() -> None:
    layout = pack(LENGTHS)
    positions = flat_positions(layout.start_B, LENGTHS)
    assert len(set(positions.tolist())) == LENGTHS.sum()
    windows = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    assert (layout.window_RT.flatten()[positions].numpy() == windows).all()
    assert int((layout.window_RT >= 0).sum()) == LENGTHS.sum()
    for start, length in zip(layout.start_B, LENGTHS, strict=True):
        assert start // layout.capacity == (start + length - 1) // layout.capacity


def test_pack_has_no_padding_if_lengths_fit() -> None:
    layout = pack(np.array([1, 6, 2, 5, 7, 4, 3]))
    assert (layout.rows, layout.capacity) == (4, 7)


def test_packed_backbone_equals_naive_blocks() -> None:
    backbone, (tokens, times, query_times) = make_backbone(), histories(LENGTHS)
    with torch.no_grad():
        for got_TD, x_TD, time_T, query_time_T in zip(
            encode(backbone, tokens, times, query_times), tokens, times, query_times, strict=True
        ):
            want_TD = x_TD
            for block in backbone.blocks:
                assert isinstance(block, Block)
                want_TD = naive_block(block, want_TD, time_T, query_time_T)
            want_TD = layer_norm(want_TD, (DIMS.width,), backbone.norm.weight)
            torch.testing.assert_close(got_TD, want_TD, rtol=1e-4, atol=1e-5)


def test_later_events_leave_earlier_hidden_states_unchanged() -> None:
    backbone, (tokens, times, query_times) = make_backbone(), histories(LENGTHS)
    before = encode(backbone, tokens, times, query_times)
    tokens[1][4:] += 3.0
    times[1][4:] += 10**9
    after = encode(backbone, tokens, times, query_times)
    assert torch.equal(before[1][:4], after[1][:4])
    assert not torch.allclose(before[1][4:], after[1][4:])
    for other in (0, 2, 3, 4, 5, 6):
        assert torch.equal(before[other], after[other])


def test_query_time_changes_only_its_own_position() -> None:
    backbone, (tokens, times, query_times) = make_backbone(), histories(LENGTHS)
    before = encode(backbone, tokens, times, query_times)
    query_times[5][-1] += 10**10
    after = encode(backbone, tokens, times, query_times)
    assert torch.equal(before[5][:-1], after[5][:-1])
    assert not torch.allclose(before[5][-1], after[5][-1])


def test_time_bucket_is_logarithmic_and_bounded() -> None:
    year = 365 * 86_400_000
    gaps = torch.tensor([-5000, 0, 580, 600, 60_000, 3_600_000, 86_400_000, year, 80 * year, 900 * year])
    assert time_bucket(gaps).tolist() == [0, 0, 0, 1, 8, 17, 24, 37, 46, 47]
    assert time_bucket(gaps).max() < TIME_BUCKETS == MASKED_BUCKET


def test_attention_mask_is_causal_within_a_window() -> None:
    layout = PackedLayout(np.array([0, 2]), 1, 4, torch.tensor([[0, 0, 1, -1]]))
    bucket_RTT = pair_buckets(layout, torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.int64))
    assert (bucket_RTT[0] != MASKED_BUCKET).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_bias_gradients_equal_plain_indexing() -> None:
    block = Block(DIMS, max_distance=5)
    bucket_RTT = torch.randint(0, MASKED_BUCKET + 1, (2, 7, 7), generator=torch.Generator().manual_seed(7))
    slope = torch.randn(3, 2, 7, 7, generator=torch.Generator().manual_seed(8))
    torch.autograd.backward((block._bias(bucket_RTT) * slope).sum())
    time_bias = torch.zeros(3, MASKED_BUCKET + 1, requires_grad=True)
    distance_bias = torch.zeros(3, 5, requires_grad=True)
    position = torch.arange(7)
    distance_TT = (position[:, None] - position).clamp(0, 4)
    torch.autograd.backward(((time_bias[:, bucket_RTT] + distance_bias[:, distance_TT][:, None]) * slope).sum())
    assert time_bias.grad is not None
    torch.testing.assert_close(block.time.grad, time_bias.grad[:, :-1])
    torch.testing.assert_close(block.distance.grad, distance_bias.grad)


@pytest.mark.parametrize("name", ["2m", "10m", "50m", "200m", "1b"])
def test_preset_has_the_parameters_of_its_name(name: str) -> None:
    with torch.device("meta"):
        backbone = Backbone(PRESETS[name], max_distance=101)
    parameters = float(name[:-1]) * {"m": 1e6, "b": 1e9}[name[-1]]
    assert sum(p.numel() for p in backbone.parameters()) == pytest.approx(parameters, rel=0.03)


def test_dropout_is_determined_by_its_generator() -> None:
    x = torch.ones(200, 50)
    assert dropout(x, 0.3, None) is x
    first, second = (dropout(x, 0.3, torch.Generator().manual_seed(9)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.unique(first).tolist() == pytest.approx([0.0, 256 / 179])
    assert float(first.mean()) == pytest.approx(1.0, abs=0.03)  # 10,000 draws: four standard errors are 0.026
