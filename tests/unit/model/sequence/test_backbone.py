"""The backbone: packing, time, causality, and equality with a plain form."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, silu

from model.sequence.backbone import (
    HIDDEN,
    PRESETS,
    TIME_BUCKETS,
    Backbone,
    Block,
    Dims,
    Layout,
    dropout,
    pack,
    pair_buckets,
    slots,
    time_bucket,
)

DIMS = Dims(width=6, blocks=2, heads=3)
LENGTHS = np.array([3, 7, 1, 5, 2, 7, 4])


def a_backbone() -> Backbone:
    torch.manual_seed(5)
    backbone = Backbone(DIMS, reach=5)  # shorter than the longest window: distances beyond it share the last bias
    with torch.no_grad():
        for p in backbone.parameters():
            p.normal_(std=0.7)
    return backbone


def histories(lengths_B: np.ndarray) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Token vectors, event times and times asked about, a tensor for each window."""
    g = torch.Generator().manual_seed(6)
    tokens = [torch.randn(n, DIMS.width, generator=g) for n in lengths_B]
    gaps = [(10 ** (torch.rand(n, generator=g) * 11)).long() for n in lengths_B]
    times = [gap.cumsum(0) + 10**12 for gap in gaps]
    asked = [torch.cat([time[1:], time[-1:] + 5000]) for time in times]
    return tokens, times, asked


def encode(backbone: Backbone, tokens: list[Tensor], times: list[Tensor], asked: list[Tensor]) -> list[Tensor]:
    """Hidden states of each window, all packed into one pass."""
    lengths_B = np.array([len(t) for t in tokens])
    layout = pack(lengths_B)
    place = torch.from_numpy(slots(layout.start_B, lengths_B))

    def spread(values: list[Tensor]) -> Tensor:
        flat = torch.cat(values)
        return flat.new_zeros(layout.rows * layout.capacity, *flat.shape[1:]).index_copy(0, place, flat)

    time_RC, asked_RC = (spread(v).view(layout.rows, layout.capacity) for v in (times, asked))
    token_RCD = spread(tokens).view(layout.rows, layout.capacity, -1)
    with torch.no_grad():
        hidden_XD = backbone(token_RCD, pair_buckets(layout, time_RC, asked_RC)).flatten(0, 1)
    return list(hidden_XD[place].split(lengths_B.tolist()))


def plainly(block: Block, x_TD: Tensor, time_T: Tensor, asked_T: Tensor) -> Tensor:
    """One block over one window, token by token."""
    width, heads, n = x_TD.shape[1], block.heads, len(x_TD)
    h_TD = layer_norm(x_TD, (width,), block.norm.weight)
    q, k, v, g = (h_TD @ block.qkvg.weight.T).view(n, 4, heads, width // heads).unbind(1)
    out_THK = torch.zeros(n, heads, width // heads)
    for i in range(n):
        for head in range(heads):
            score = torch.stack(
                [
                    q[i, head] @ k[j, head] / math.sqrt(width // heads)
                    + block.time[head, int(time_bucket(asked_T[i] - time_T[j]))]
                    + block.distance[head, min(i - j, block.distance.shape[1] - 1)]
                    for j in range(i + 1)
                ]
            )
            out_THK[i, head] = score.softmax(0) @ v[: i + 1, head]
    x_TD = x_TD + (out_THK * silu(g)).flatten(1) @ block.out.weight.T
    a, b = (layer_norm(x_TD, (width,), block.ffn_norm.weight) @ block.ffn.weight.T).chunk(2, 1)
    return x_TD + (silu(a) * b) @ block.ffn_out.weight.T


def test_every_token_gets_a_slot_of_its_own_in_the_row_of_its_window() -> None:
    layout = pack(LENGTHS)
    place = slots(layout.start_B, LENGTHS)
    assert len(set(place.tolist())) == LENGTHS.sum()
    owner = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    assert (layout.window_RC.flatten()[place].numpy() == owner).all()
    assert int((layout.window_RC >= 0).sum()) == LENGTHS.sum()
    for start, length in zip(layout.start_B, LENGTHS, strict=True):
        assert start // layout.capacity == (start + length - 1) // layout.capacity


def test_packing_wastes_nothing_where_the_lengths_fit() -> None:
    layout = pack(np.array([1, 6, 2, 5, 7, 4, 3]))
    assert (layout.rows, layout.capacity) == (4, 7)


def test_the_packed_stack_equals_each_window_computed_token_by_token() -> None:
    backbone, (tokens, times, asked) = a_backbone(), histories(LENGTHS)
    with torch.no_grad():
        for got_TD, x_TD, time_T, asked_T in zip(
            encode(backbone, tokens, times, asked), tokens, times, asked, strict=True
        ):
            want_TD = x_TD
            for block in backbone.blocks:
                assert isinstance(block, Block)
                want_TD = plainly(block, want_TD, time_T, asked_T)
            want_TD = layer_norm(want_TD, (DIMS.width,), backbone.norm.weight)
            torch.testing.assert_close(got_TD, want_TD, rtol=1e-4, atol=1e-5)


def test_changing_a_later_event_changes_no_earlier_hidden_bit() -> None:
    backbone, (tokens, times, asked) = a_backbone(), histories(LENGTHS)
    before = encode(backbone, tokens, times, asked)
    tokens[1][4:] += 3.0
    times[1][4:] += 10**9
    after = encode(backbone, tokens, times, asked)
    assert torch.equal(before[1][:4], after[1][:4])
    assert not torch.allclose(before[1][4:], after[1][4:])
    for other in (0, 2, 3, 4, 5, 6):
        assert torch.equal(before[other], after[other])


def test_the_moment_asked_about_changes_the_answer_there_and_nowhere_before() -> None:
    backbone, (tokens, times, asked) = a_backbone(), histories(LENGTHS)
    before = encode(backbone, tokens, times, asked)
    asked[5][-1] += 10**10
    after = encode(backbone, tokens, times, asked)
    assert torch.equal(before[5][:-1], after[5][:-1])
    assert not torch.allclose(before[5][-1], after[5][-1])


def test_time_buckets_grow_with_the_gap_and_end() -> None:
    year = 365 * 86_400_000
    gaps = torch.tensor([-5000, 0, 580, 600, 60_000, 3_600_000, 86_400_000, year, 80 * year, 900 * year])
    assert time_bucket(gaps).tolist() == [0, 0, 0, 1, 8, 17, 24, 37, 46, 47]
    assert time_bucket(gaps).max() < TIME_BUCKETS == HIDDEN


def test_a_query_sees_earlier_keys_of_its_own_window_only() -> None:
    layout = Layout(np.array([0, 2]), 1, 4, torch.tensor([[0, 0, 1, -1]]))
    bucket_RCC = pair_buckets(layout, torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.int64))
    assert (bucket_RCC[0] != HIDDEN).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_gradients_of_the_biases_equal_those_of_plain_indexing() -> None:
    block = Block(DIMS, reach=5)
    bucket_RCC = torch.randint(0, HIDDEN + 1, (2, 7, 7), generator=torch.Generator().manual_seed(7))
    slope = torch.randn(3, 2, 7, 7, generator=torch.Generator().manual_seed(8))
    torch.autograd.backward((block._bias(bucket_RCC) * slope).sum())
    time_HK = torch.zeros(3, HIDDEN + 1, requires_grad=True)
    distance_HK = torch.zeros(3, 5, requires_grad=True)
    place = torch.arange(7)
    back_CC = (place[:, None] - place).clamp(0, 4)
    torch.autograd.backward(((time_HK[:, bucket_RCC] + distance_HK[:, back_CC][:, None]) * slope).sum())
    assert time_HK.grad is not None
    torch.testing.assert_close(block.time.grad, time_HK.grad[:, :-1])
    torch.testing.assert_close(block.distance.grad, distance_HK.grad)


@pytest.mark.parametrize("name", ["2m", "10m", "50m", "200m", "1b"])
def test_a_preset_has_the_parameters_that_it_promises(name: str) -> None:
    with torch.device("meta"):
        backbone = Backbone(PRESETS[name], reach=101)
    promised = float(name[:-1]) * {"m": 1e6, "b": 1e9}[name[-1]]
    assert sum(p.numel() for p in backbone.parameters()) == pytest.approx(promised, rel=0.03)


def test_dropout_comes_from_its_generator_alone() -> None:
    x = torch.ones(200, 50)
    assert dropout(x, 0.3, None) is x
    first, second = (dropout(x, 0.3, torch.Generator().manual_seed(9)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.unique(first).tolist() == pytest.approx([0.0, 256 / 179])
    assert float(first.mean()) == pytest.approx(1.0, abs=0.03)  # 10,000 draws: four standard errors are 0.026
