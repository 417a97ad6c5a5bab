"""The objective: sampled softmax over one local table of titles a step, for the next event and for delayed ones.

Each trained event `j` gives a row of horizon 0: predict `j` from all before it. A share of them give another, of one
of the delays `k`, drawn: predict `j` from what was known `k` events and a little earlier, `j - k - o`, where the offset
`o` inside the horizon's window is drawn with weights that halve every `half_life` events. That is, in expectation, the
windowed target set with decaying, normalised weights, at the cost of part of a row.

    loss = softplus( logsumexp_j( s_j - log(n q_j) ) - s_pos )

with shared negatives from the proposal `q` that was really drawn from, and a row's own positive masked among them. All
titles of the step are made unique, gathered and encoded once; everything else is local indices. Ids are masked per
title and step, the same on both sides, so that a masked id gives no answer away.
Sources: arXiv 2605.23312 (windowed targets, masking), sampled softmax with the correction of the drawn proposal.

B windows · L events · N rows of the loss · J negatives · U unique titles · M launched titles · V titles
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from kernels.sampled_softmax import neg_lse, sampled_softmax_loss
from model.sequence.network import Network, TitleInputs, Tokens, Windows, tokens
from model.sequence.optimizers import Optimisers


@dataclass(frozen=True)
class ObjectiveSettings:
    negatives: int = 512
    uniform: float = 0.5  # share of the negatives drawn evenly from the launched titles; the others by frequency
    windows: tuple[int, ...] = (1, 5, 10)  # events that each horizon's target set spans; 1: the very next
    half_life: float = 2.0  # events, of the weights within a window
    delayed: float = 0.5  # share of the events that are asked for at another horizon too
    id_mask: float = 0.1  # share of ids hidden in a step
    logq: Literal["corrected", "naive", "none"] = "corrected"  # naive: the positive's logit is corrected too
    replayed_ids: bool = True  # whether replayed windows move the id rows
    title_weight: float = 1.0  # of the next title's loss, where the network has further tasks
    task_weight: float = 1.0  # of each further task's


@dataclass(frozen=True)
class Rows:
    """What is asked: rows of the loss."""

    window_N: Tensor
    token_N: Tensor  # which token of the window asks
    horizon_N: Tensor  # place in the settings' horizons
    title_N: Tensor  # row of the true title
    weight_N: Tensor
    action_N: Tensor  # what was done with the true title


@dataclass(frozen=True)
class StepReport:
    """What a step did."""

    loss: float  # nats, mean over horizon 0 rows
    positions: int  # events trained
    skipped: bool  # left out: its gradient was not finite, or exploding


def sample_negatives(
    generator: Generator, n: int, launched_M: Tensor, frequency_V: Tensor | None, uniform: float
) -> tuple[Tensor, Tensor]:
    """(title_J, log_expected_J): `n` draws with replacement, and the log of how often each was to be expected.

    A fixed share is uniform over the launched titles, the rest by streaming frequency among them, so title j is to be
    expected `n_uniform / M + n_frequent * f_j` times: the proposal's own `n q_j`, whatever the mixture.
    """
    even, weight_M = _proposal(n, launched_M, frequency_V, uniform)
    place_J = torch.randint(len(launched_M), (even,), generator=generator)
    if even < n:
        point_J = torch.rand(n - even, generator=generator, dtype=torch.float64)
        frequent_J = torch.searchsorted(weight_M.cumsum(0), point_J).clamp_(max=len(launched_M) - 1)
        place_J = torch.cat([place_J, frequent_J])
    expected_J = even / len(launched_M) + (n - even) * weight_M[place_J]
    return launched_M[place_J], expected_J.log().float()


def _proposal(n: int, launched_M: Tensor, frequency_V: Tensor | None, uniform: float) -> tuple[int, Tensor]:
    """(how many are drawn evenly, weight_M by which the others are)."""
    weight_M = None if frequency_V is None else frequency_V[launched_M].double()
    if weight_M is None or not float(weight_M.sum()) > 0:
        return n, torch.zeros(len(launched_M), dtype=torch.float64)
    return round(n * uniform), weight_M / weight_M.sum()


def log_expected(n: int, titles: TitleInputs, uniform: float, title_N: Tensor) -> Tensor:
    """How often each of these titles is to be expected among `n` negatives, as a log; of one that is not launched, as
    an even draw."""
    even, weight_M = _proposal(n, titles.launched_M, titles.frequency_V, uniform)
    weight_V = torch.zeros(len(titles.count_V), dtype=torch.float64)
    weight_V[titles.launched_M] = weight_M
    expected_N = even / len(titles.launched_M) + (n - even) * weight_V[title_N]
    return expected_N.clamp_min(1e-6).log().float()


def rows_of(windows: Windows, horizons: tuple[int, ...], settings: ObjectiveSettings, generator: Generator) -> Rows:
    """A row of the first horizon for each trained event and, for a share of them where it fits, one of another."""
    inside_BL = torch.arange(windows.title_BL.shape[1]) < windows.length_B[:, None]
    window_N, event_N = torch.nonzero((windows.weight_BL > 0) & (windows.title_BL >= 0) & inside_BL, as_tuple=True)
    horizon_N, weight_N = torch.zeros_like(event_N), windows.weight_BL[window_N, event_N]
    if len(horizons) > 1:
        again_N = torch.nonzero(torch.rand(event_N.shape, generator=generator) < settings.delayed).flatten()
        other_N = torch.randint(1, len(horizons), again_N.shape, generator=generator)
        horizon_N = torch.cat([horizon_N, other_N])
        window_N, event_N, weight_N = (torch.cat([x, x[again_N]]) for x in (window_N, event_N, weight_N))
    token_N = event_N - torch.tensor(horizons)[horizon_N] - _offset(horizon_N, settings, generator)
    fits_N = token_N >= 0
    title_N, action_N = windows.title_BL[window_N, event_N], windows.action_BL[window_N, event_N]
    return Rows(*(value[fits_N] for value in (window_N, token_N, horizon_N, title_N, weight_N, action_N)))


def _offset(horizon_N: Tensor, settings: ObjectiveSettings, generator: Generator) -> Tensor:
    """How much further back than the horizon each row asks: weights `2^(-o / half_life)` for `o` within the window."""
    reach_H = torch.tensor(settings.windows, dtype=torch.float32)
    decay = 0.5 ** (1 / settings.half_life)
    # The inverse of the geometric distribution's sum, cut at the window.
    point_N = torch.rand(horizon_N.shape, generator=generator) * (1 - decay**reach_H)[horizon_N]
    offset_N = (torch.log1p(-point_N) / math.log(decay)).long()
    return torch.minimum(offset_N, reach_H.long()[horizon_N] - 1)


@dataclass(frozen=True)
class Batch:
    """A step's windows and rows in terms of one local table of titles."""

    packed: Tokens  # its titles are places in `title_U`
    rows: Rows
    title_U: Tensor  # rows of the catalogue, sorted
    mask_U: Tensor  # ids that are hidden in this step
    positive_N: Tensor  # places in `title_U`
    negative_J: Tensor
    log_expected_J: Tensor
    log_expected_N: Tensor | None = None  # of the positives, where they are corrected too


def batch_of(
    windows: Windows, titles: TitleInputs, horizons: tuple[int, ...], settings: ObjectiveSettings, generator: Generator
) -> Batch | None:
    """Draw what a step needs drawn and make its titles unique; None where nothing can be learned."""
    assert len(settings.windows) == len(horizons), "a window for each horizon"
    rows = rows_of(windows, horizons, settings, generator)
    if not len(rows.title_N) or not len(titles.launched_M):
        return None
    negative_J, log_expected_J = sample_negatives(
        generator, settings.negatives, titles.launched_M, titles.frequency_V, settings.uniform
    )
    packed = tokens(windows, None)
    everything = torch.cat([packed.title_RC.flatten(), rows.title_N, negative_J])
    title_U, place = torch.unique(everything, return_inverse=True)
    unknown = int((title_U < 0).sum())  # start tokens, padding and unknown titles, which have no row
    place_X, positive_N, negative_J = torch.split(
        place - unknown, [packed.title_RC.numel(), len(rows.title_N), len(negative_J)]
    )
    mask_U = torch.rand(len(title_U) - unknown, generator=generator) < settings.id_mask
    known_RC = torch.where(packed.title_RC < 0, packed.title_RC, place_X.view_as(packed.title_RC))
    local = replace(packed, title_RC=known_RC)
    own_N = None
    if settings.logq == "naive":
        own_N = log_expected(settings.negatives, titles, settings.uniform, rows.title_N)
    elif settings.logq == "none":
        log_expected_J = torch.zeros_like(log_expected_J)
    return Batch(local, rows, title_U[unknown:], mask_U, positive_N, negative_J, log_expected_J, own_N)


def row_losses(
    network: Network, batch: Batch, titles: TitleInputs, id_UE: Tensor, generator: Generator | None = None
) -> Tensor:
    """loss_N in nats, unweighted; `id_UE` are the step's id rows, `generator` turns dropout on."""
    encoded = _encode(network, batch, titles, id_UE, generator)
    return _title_losses(network, batch, *encoded, torch.ones_like(batch.rows.weight_N))


def _encode(
    network: Network, batch: Batch, titles: TitleInputs, id_UE: Tensor, generator: Generator | None
) -> tuple[Tensor, Tensor]:
    """(tower_UD of the step's titles, hidden_ND of its rows)."""
    tower_UD = network.title_vectors(
        titles.semantic_VS[batch.title_U], id_UE, titles.count_V[batch.title_U], batch.mask_U
    )
    hidden_XD = network(tower_UD, batch.packed, generator)
    return tower_UD, hidden_XD.index_select(0, batch.packed.slots(batch.rows.window_N, batch.rows.token_N))


def _title_losses(network: Network, batch: Batch, tower_UD: Tensor, hidden_ND: Tensor, weight_N: Tensor) -> Tensor:
    """loss_N of the title that comes."""
    rows, horizon_head = batch.rows, network.horizon_head
    query_NP = network.query(hidden_ND, rows.horizon_N) * horizon_head.scale
    title_UP = network.candidates(tower_UD)
    positive_NP = title_UP.index_select(0, batch.positive_N)
    negative_JP = title_UP.index_select(0, batch.negative_J)
    negatives = negative_JP, batch.positive_N, batch.negative_J
    if batch.log_expected_N is not None:
        lse_N = neg_lse(query_NP, *negatives, -batch.log_expected_J)
        return weight_N * softplus(lse_N - (query_NP * positive_NP).sum(1) + batch.log_expected_N)
    loss_N: Tensor = sampled_softmax_loss(query_NP, positive_NP, *negatives, batch.log_expected_J, weight_N)
    return loss_N


def _task_losses(network: Network, batch: Batch, titles: TitleInputs, tower_UD: Tensor, hidden_ND: Tensor) -> Tensor:
    """loss_N of all further tasks together, unweighted; 0 where a row asks at a later horizon."""
    assert titles.genres_VG is not None
    first_N = torch.nonzero(batch.rows.horizon_N == 0).flatten()
    title_ND = tower_UD.index_select(0, batch.positive_N[first_N])
    known = batch.rows.action_N[first_N], titles.genres_VG[batch.rows.title_N[first_N]]
    asked_ND = hidden_ND.index_select(0, first_N)
    losses = [network.head(name).losses(asked_ND, title_ND, *known) for name in network.settings.tasks]
    return hidden_ND.new_zeros(len(hidden_ND)).index_add(0, first_N, torch.stack(losses).sum(0))


def train_step(
    network: Network,
    optimisers: Optimisers,
    titles: TitleInputs,
    windows: Windows,
    settings: ObjectiveSettings,
    generator: Generator,
    fresh: int = 0,
) -> StepReport:
    """Learn from these windows once, of which the first `fresh` are not replayed. All that is random comes from
    `generator`."""
    batch = batch_of(windows, titles, network.settings.horizons, settings, generator)
    if batch is None:
        return StepReport(0.0, 0, False)
    id_UE = optimisers.rows.table_VE[batch.title_U].requires_grad_()
    share_N = batch.rows.weight_N / batch.rows.weight_N.sum()
    optimisers.dense.zero_grad()
    encoded = _encode(network, batch, titles, id_UE, generator)
    loss_N = title_N = _title_losses(network, batch, *encoded, share_N)
    if network.settings.tasks:
        further_N = share_N * _task_losses(network, batch, titles, *encoded)
        loss_N = settings.title_weight * title_N + settings.task_weight * further_N
    own_UE = None
    if not settings.replayed_ids:
        own_UE = torch.autograd.grad(loss_N[batch.rows.window_N < fresh].sum(), id_UE, retain_graph=True)[0]
    torch.autograd.backward(loss_N.sum())
    accepted = optimisers.dense.accepts()
    if accepted:
        optimisers.dense.step()
        assert id_UE.grad is not None
        optimisers.rows.update(batch.title_U, id_UE.grad if own_UE is None else own_UE)
    first_N = batch.rows.horizon_N == 0
    loss = float(title_N.detach()[first_N].sum() / share_N[first_N].sum())
    return StepReport(loss, int(first_N.sum()), not accepted)
