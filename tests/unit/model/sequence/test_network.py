"""The network: what a window becomes, and that training and serving ask the same question."""

from dataclasses import replace

import torch

from model.sequence.network import (
    EARLIER,
    UNKNOWN,
    Windows,
    encode_events,
    encode_users,
    title_table,
    tokens,
)
from tests.support.network import V, a_network, later, some_windows, titles


def test_a_window_begins_with_a_start_token_and_asks_at_the_next_events_time() -> None:
    one = Windows(*(torch.tensor([v]) for v in ([7, 9], [3, 4], [1000, 5000], [1.0, 1.0], 2)))
    trained = tokens(one, None)
    assert trained.title_RC.tolist() == [[UNKNOWN, 7]]
    assert trained.action_RC.tolist() == [[0, 3]]
    assert trained.time_RC.tolist() == [[1000, 1000]]
    assert trained.asked_RC.tolist() == [[1000, 5000]]
    cut = tokens(replace(one, cut_B=torch.tensor([True])), None)
    assert cut.title_RC.tolist() == [[EARLIER, 7]]
    served = tokens(one, torch.tensor([9000]))
    assert served.title_RC.tolist() == [[UNKNOWN, 7, 9]]
    assert served.action_RC.tolist() == [[0, 3, 4]]
    assert served.time_RC.tolist() == [[1000, 1000, 5000]]
    assert served.asked_RC.tolist() == [[1000, 5000, 9000]]


def test_every_event_is_predicted_from_what_serving_would_have_seen_just_before_it() -> None:
    network, windows = a_network(), some_windows()
    tower_VD, _ = title_table(network, titles())
    window_N = torch.repeat_interleave(windows.length_B)
    event_N = torch.cat([torch.arange(n) for n in windows.length_B.tolist()])
    got_ND = encode_events(network, tower_VD, windows, window_N, event_N)
    for got_D, window, event in zip(got_ND, window_N.tolist(), event_N.tolist(), strict=True):
        before = replace(windows.take(torch.tensor([window])), length_B=torch.tensor([event]))
        want_BD = encode_users(network, tower_VD, before, windows.time_BL[window, event : event + 1])
        torch.testing.assert_close(got_D, want_BD[0], rtol=1e-4, atol=1e-5)


def test_a_batch_of_viewers_equals_each_alone() -> None:
    network, windows = a_network(), some_windows()
    tower_VD, _ = title_table(network, titles())
    now_B = later(windows)
    all_BD = encode_users(network, tower_VD, windows, now_B)
    for b in range(len(windows)):
        alone_BD = encode_users(network, tower_VD, windows.take(torch.tensor([b])), now_B[b : b + 1])
        torch.testing.assert_close(all_BD[b], alone_BD[0], rtol=1e-4, atol=1e-5)


def test_many_viewers_are_encoded_in_parts_that_keep_their_places() -> None:
    network, few = a_network(), some_windows()
    many = few.take(torch.arange(300) % 5)
    tower_VD, _ = title_table(network, titles())
    want_BD = encode_users(network, tower_VD, few, later(few))
    got_BD = encode_users(network, tower_VD, many, later(few).repeat(60))
    torch.testing.assert_close(got_BD, want_BD.repeat(60, 1), rtol=1e-4, atol=1e-5)


def test_a_viewer_nobody_has_seen_gets_an_answer_that_does_not_depend_on_the_time() -> None:
    network = a_network()
    tower_VD, _ = title_table(network, titles())
    nothing_BL = torch.zeros(2, 0, dtype=torch.int64)
    nobody = Windows(nothing_BL, nothing_BL, nothing_BL, nothing_BL.float(), torch.zeros(2, dtype=torch.int64))
    hidden_BD = encode_users(network, tower_VD, nobody, torch.tensor([0, 10**13]))
    assert torch.equal(hidden_BD[0], hidden_BD[1])


def test_what_lies_beyond_a_windows_length_is_not_read() -> None:
    network, windows = a_network(), some_windows()
    tower_VD, _ = title_table(network, titles())
    want_BD = encode_users(network, tower_VD, windows, later(windows))
    beyond_BL = torch.arange(9) >= windows.length_B[:, None]
    windows.title_BL[beyond_BL] = 11
    windows.time_BL[beyond_BL] = -5
    windows.action_BL[beyond_BL] = 2
    assert torch.equal(encode_users(network, tower_VD, windows, later(some_windows())), want_BD)


def test_a_masked_id_is_an_absent_id() -> None:
    network, known = a_network(), titles()
    mask_V = torch.arange(V) % 3 == 0
    masked_VD = network.title_vectors(known.semantic_VS, known.id_VE, known.count_V, mask_V)
    absent_V = known.count_V.masked_fill(mask_V, 0.0)
    absent_VD = network.title_vectors(known.semantic_VS, torch.zeros_like(known.id_VE), absent_V)
    plain_VD = network.title_vectors(known.semantic_VS, known.id_VE, known.count_V)
    assert torch.equal(masked_VD[mask_V], absent_VD[mask_V])
    assert torch.equal(masked_VD[~mask_V], plain_VD[~mask_V])


def test_predicting_changes_nothing() -> None:
    network, windows, known = a_network(), some_windows(), titles()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    tower_VD, _ = title_table(network, known)
    hidden_BD = encode_users(network, tower_VD, windows, later(windows))
    network.query(hidden_BD, torch.zeros(5, dtype=torch.int64))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
