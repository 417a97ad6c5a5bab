"""The network: packing of windows, and equality of training and serving inputs."""

from dataclasses import replace

import pytest
import torch

from model.sequence.network import (
    TRUNCATED_START,
    UNKNOWN_TITLE,
    Network,
    Windows,
    encode_events,
    encode_titles,
    encode_users,
    pack_tokens,
)
from tests.support.network import SETTINGS, V, after_last_event, make_network, random_windows, titles


def test_window_has_start_token_and_next_event_query_times() -> None:
    one = Windows(*(torch.tensor([v]) for v in ([7, 9], [3, 4], [1000, 5000], [1.0, 1.0], 2)))
    training = pack_tokens(one, None)
    assert training.title_RT.tolist() == [[UNKNOWN_TITLE, 7]]
    assert training.action_RT.tolist() == [[0, 3]]
    assert training.time_RT.tolist() == [[1000, 1000]]
    assert training.query_time_RT.tolist() == [[1000, 5000]]
    truncated = pack_tokens(replace(one, truncated_B=torch.tensor([True])), None)
    assert truncated.title_RT.tolist() == [[TRUNCATED_START, 7]]
    serving = pack_tokens(one, torch.tensor([9000]))
    assert serving.title_RT.tolist() == [[UNKNOWN_TITLE, 7, 9]]
    assert serving.action_RT.tolist() == [[0, 3, 4]]
    assert serving.time_RT.tolist() == [[1000, 1000, 5000]]
    assert serving.query_time_RT.tolist() == [[1000, 5000, 9000]]


def test_encode_events_equals_serving_before_each_event() -> None:
    network, windows = make_network(), random_windows()
    tower_VD, _ = encode_titles(network, titles())
    window_N = torch.repeat_interleave(windows.length_B)
    event_N = torch.cat([torch.arange(n) for n in windows.length_B.tolist()])
    got_ND = encode_events(network, tower_VD, windows, window_N, event_N)
    for got_D, window, event in zip(got_ND, window_N.tolist(), event_N.tolist(), strict=True):
        before = replace(windows.select(torch.tensor([window])), length_B=torch.tensor([event]))
        want_BD = encode_users(network, tower_VD, before, windows.time_BL[window, event : event + 1])
        torch.testing.assert_close(got_D, want_BD[0], rtol=1e-4, atol=1e-5)


def test_batch_of_users_equals_single_users() -> None:
    network, windows = make_network(), random_windows()
    tower_VD, _ = encode_titles(network, titles())
    now_B = after_last_event(windows)
    all_BD = encode_users(network, tower_VD, windows, now_B)
    for b in range(len(windows)):
        alone_BD = encode_users(network, tower_VD, windows.select(torch.tensor([b])), now_B[b : b + 1])
        torch.testing.assert_close(all_BD[b], alone_BD[0], rtol=1e-4, atol=1e-5)


def test_encoding_in_parts_keeps_the_order_of_users() -> None:
    network, few = make_network(), random_windows()
    many = few.select(torch.arange(300) % 5)
    tower_VD, _ = encode_titles(network, titles())
    want_BD = encode_users(network, tower_VD, few, after_last_event(few))
    got_BD = encode_users(network, tower_VD, many, after_last_event(few).repeat(60))
    torch.testing.assert_close(got_BD, want_BD.repeat(60, 1), rtol=1e-4, atol=1e-5)


def test_unknown_user_does_not_depend_on_query_time() -> None:
    network = make_network()
    tower_VD, _ = encode_titles(network, titles())
    empty_BL = torch.zeros(2, 0, dtype=torch.int64)
    unknown = Windows(empty_BL, empty_BL, empty_BL, empty_BL.float(), torch.zeros(2, dtype=torch.int64))
    hidden_BD = encode_users(network, tower_VD, unknown, torch.tensor([0, 10**13]))
    assert torch.equal(hidden_BD[0], hidden_BD[1])


def test_values_beyond_window_length_are_ignored() -> None:
    network, windows = make_network(), random_windows()
    tower_VD, _ = encode_titles(network, titles())
    want_BD = encode_users(network, tower_VD, windows, after_last_event(windows))
    beyond_BL = torch.arange(9) >= windows.length_B[:, None]
    windows.title_BL[beyond_BL] = 11
    windows.time_BL[beyond_BL] = -5
    windows.action_BL[beyond_BL] = 2
    assert torch.equal(encode_users(network, tower_VD, windows, after_last_event(random_windows())), want_BD)


def test_masked_id_equals_id_without_evidence() -> None:
    network, inputs = make_network(), titles()
    mask_V = torch.arange(V) % 3 == 0
    masked_VD = network.title_vectors(inputs.semantic_VE, inputs.id_VI, inputs.count_V, mask_V)
    evidence_V = inputs.count_V.masked_fill(mask_V, 0.0)
    absent_VD = network.title_vectors(inputs.semantic_VE, torch.zeros_like(inputs.id_VI), evidence_V)
    plain_VD = network.title_vectors(inputs.semantic_VE, inputs.id_VI, inputs.count_V)
    assert torch.equal(masked_VD[mask_V], absent_VD[mask_V])
    assert torch.equal(masked_VD[~mask_V], plain_VD[~mask_V])


def test_encoding_leaves_weights_and_random_state_unchanged() -> None:
    network, windows, inputs = make_network(), random_windows(), titles()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    tower_VD, _ = encode_titles(network, inputs)
    hidden_BD = encode_users(network, tower_VD, windows, after_last_event(windows))
    network.query(hidden_BD, torch.zeros(5, dtype=torch.int64))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


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
    assert torch.allclose(near, far, atol=1e-5) is not time_bias


def test_without_text_titles_differ_only_by_id() -> None:
    torch.manual_seed(3)
    network = Network(replace(SETTINGS, use_text=False))
    known = titles()
    shuffled = replace(known, semantic_VE=known.semantic_VE.flip(0))
    assert torch.equal(encode_titles(network, known)[1], encode_titles(network, shuffled)[1])
    other = replace(known, id_VI=known.id_VI.flip(0))
    assert not torch.equal(encode_titles(network, known)[1], encode_titles(network, other)[1])
