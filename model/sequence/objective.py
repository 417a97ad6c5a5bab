"""The training objective: sampled softmax with shared negatives, for the next event and for later horizons.

Each trained event `j` (counted from 0) gives one loss row of horizon 0: predict event `j` from the `j` events before
it. A share of the events gives a second row of a random other horizon `k`: predict event `j` from the first `j - k - o`
events. The offset `o` is less than the horizon's target window, and its weights halve every `half_life` events.
Example: horizon 3 has a window of 5, so event 20 is predicted from the first 13 to 17 events. Seen from one position,
the targets of horizon 3 are the events 3 to 7 positions after the next one. In expectation this equals the paper's
windowed target set with decaying, normalized weights, at a fraction of a row per event.

    loss = softplus( logsumexp_s( z_s - log(n q_s) ) - z_pos )

The negatives are shared by all rows and corrected by the proposal `q` they were drawn from; a row's positive is masked
among them. The distinct titles of a step are gathered and encoded once; everything else indexes into them. Id masks are
drawn per title and step and apply to histories and candidates alike, so a masked id does not reveal the target.
Sources: arXiv 2605.23312 (windowed targets, masking); sampled softmax with logQ correction.

B windows · L events of a window · N loss rows · S shared negatives · M distinct titles of a step
C launched titles · V titles · H horizons
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from kernels.sampled_softmax import sampled_softmax_loss
from model.sequence.network import Network, PackedTokens, TitleInputs, Windows, pack_tokens
from model.sequence.optimizers import Optimizers
from model.settings import ObjectiveSettings


@dataclass(frozen=True)
class LossRows:
    """The rows of the loss: each predicts one target title from one token."""

    window_N: Tensor  # index of the window
    token_N: Tensor  # index of the token in the window
    horizon_N: Tensor  # index into the settings' horizons
    title_N: Tensor  # catalog row of the target title
    weight_N: Tensor  # loss weight
    action_N: Tensor  # action code of the target event


@dataclass(frozen=True)
class StepReport:
    """The result of a training step."""

    loss: float  # nats, mean over the rows of horizon 0
    positions: int  # trained events
    skipped: bool  # not applied: the gradient was not finite or exploding


def sample_negatives(
    generator: Generator, n: int, launched_C: Tensor, frequency_V: Tensor | None, uniform_share: float
) -> tuple[Tensor, Tensor]:
    """(title_S, log_expected_S): `n` draws with replacement, and the log of each title's expected number of draws.

    A fixed share is drawn uniformly from the launched titles, the rest by recent frequency. Title s is expected
    `n_uniform / C + n_frequent * f_s` times, which equals `n q_s` of the mixture.
    """
    uniform, weight_C = _proposal(n, launched_C, frequency_V, uniform_share)
    index_S = torch.randint(len(launched_C), (uniform,), generator=generator)
    if uniform < n:
        quantile_S = torch.rand(n - uniform, generator=generator, dtype=torch.float64)
        frequent_S = torch.searchsorted(weight_C.cumsum(0), quantile_S).clamp_(max=len(launched_C) - 1)
        index_S = torch.cat([index_S, frequent_S])
    expected_S = uniform / len(launched_C) + (n - uniform) * weight_C[index_S]
    return launched_C[index_S], expected_S.log().float()


def _proposal(n: int, launched_C: Tensor, frequency_V: Tensor | None, uniform_share: float) -> tuple[int, Tensor]:
    """(number of uniform draws, weight_C of the other draws)."""
    weight_C = None if frequency_V is None else frequency_V[launched_C].double()
    if weight_C is None or not float(weight_C.sum()) > 0:
        return n, torch.zeros(len(launched_C), dtype=torch.float64)
    return round(n * uniform_share), weight_C / weight_C.sum()


def build_loss_rows(
    windows: Windows, horizons: tuple[int, ...], settings: ObjectiveSettings, generator: Generator
) -> LossRows:
    """A row of the first horizon for each trained event, and for a share of them a row of another horizon.

    A row whose token would lie before the start of the window is dropped.
    """
    inside_BL = torch.arange(windows.title_BL.shape[1]) < windows.length_B[:, None]
    window_N, event_N = torch.nonzero((windows.weight_BL > 0) & (windows.title_BL >= 0) & inside_BL, as_tuple=True)
    horizon_N, weight_N = torch.zeros_like(event_N), windows.weight_BL[window_N, event_N]
    if len(horizons) > 1:
        repeated_N = torch.nonzero(torch.rand(event_N.shape, generator=generator) < settings.horizon_share).flatten()
        other_N = torch.randint(1, len(horizons), repeated_N.shape, generator=generator)
        horizon_N = torch.cat([horizon_N, other_N])
        window_N, event_N, weight_N = (torch.cat([x, x[repeated_N]]) for x in (window_N, event_N, weight_N))
    token_N = event_N - torch.tensor(horizons)[horizon_N] - _offset(horizon_N, settings, generator)
    fits_N = token_N >= 0
    title_N, action_N = windows.title_BL[window_N, event_N], windows.action_BL[window_N, event_N]
    return LossRows(*(value[fits_N] for value in (window_N, token_N, horizon_N, title_N, weight_N, action_N)))


def _offset(horizon_N: Tensor, settings: ObjectiveSettings, generator: Generator) -> Tensor:
    """The offset `o` of each row within its target window, drawn with weights `2^(-o / half_life)`."""
    window_H = torch.tensor(settings.target_windows, dtype=torch.float32)
    decay = 0.5 ** (1 / settings.half_life)
    # Inverse transform sampling of a geometric distribution that is truncated at the window.
    quantile_N = torch.rand(horizon_N.shape, generator=generator) * (1 - decay**window_H)[horizon_N]
    offset_N = (torch.log1p(-quantile_N) / math.log(decay)).long()
    return torch.minimum(offset_N, window_H.long()[horizon_N] - 1)


@dataclass(frozen=True)
class TrainingBatch:
    """The windows and loss rows of a step, indexed by the distinct titles of the step."""

    packed: PackedTokens  # its titles are indices into `title_M`
    rows: LossRows
    title_M: Tensor  # catalog rows, sorted
    mask_M: Tensor  # whether the id is masked in this step
    positive_N: Tensor  # indices into `title_M`
    negative_S: Tensor  # indices into `title_M`
    log_expected_S: Tensor  # log of the expected number of draws


def build_batch(
    windows: Windows, titles: TitleInputs, horizons: tuple[int, ...], settings: ObjectiveSettings, generator: Generator
) -> TrainingBatch | None:
    """Draw the loss rows, negatives and id masks of a step; None if there is nothing to learn."""
    assert len(settings.target_windows) == len(horizons), "target_windows needs one entry per horizon"
    rows = build_loss_rows(windows, horizons, settings, generator)
    if not len(rows.title_N) or not len(titles.launched_C):
        return None
    negative_S, log_expected_S = sample_negatives(
        generator, settings.negatives, titles.launched_C, titles.frequency_V, settings.uniform_share
    )
    packed = pack_tokens(windows, None)
    all_titles = torch.cat([packed.title_RT.flatten(), rows.title_N, negative_S])
    title_M, index = torch.unique(all_titles, return_inverse=True)
    negative_codes = int((title_M < 0).sum())  # start tokens, padding and unknown titles, which have no catalog row
    index_X, positive_N, negative_S = torch.split(
        index - negative_codes, [packed.title_RT.numel(), len(rows.title_N), len(negative_S)]
    )
    mask_M = torch.rand(len(title_M) - negative_codes, generator=generator) < settings.id_mask
    index_RT = torch.where(packed.title_RT < 0, packed.title_RT, index_X.view_as(packed.title_RT))
    packed, title_M = replace(packed, title_RT=index_RT), title_M[negative_codes:]
    if settings.logq == "none":
        log_expected_S = torch.zeros_like(log_expected_S)
    return TrainingBatch(packed, rows, title_M, mask_M, positive_N, negative_S, log_expected_S)


def row_losses(
    network: Network, batch: TrainingBatch, titles: TitleInputs, id_MI: Tensor, generator: Generator | None = None
) -> Tensor:
    """loss_N in nats, unweighted. `id_MI` are the step's id embeddings; a generator turns dropout on."""
    encoded = _encode(network, batch, titles, id_MI, generator)
    return _title_losses(network, batch, *encoded, torch.ones_like(batch.rows.weight_N))


def _encode(
    network: Network, batch: TrainingBatch, titles: TitleInputs, id_MI: Tensor, generator: Generator | None
) -> tuple[Tensor, Tensor]:
    """(tower_MD of the step's titles, hidden_ND of its loss rows)."""
    tower_MD = network.title_vectors(
        titles.semantic_VE[batch.title_M], id_MI, titles.count_V[batch.title_M], batch.mask_M
    )
    hidden_XD = network(tower_MD, batch.packed, generator)
    return tower_MD, hidden_XD.index_select(0, batch.packed.positions(batch.rows.window_N, batch.rows.token_N))


def _title_losses(
    network: Network, batch: TrainingBatch, tower_MD: Tensor, hidden_ND: Tensor, weight_N: Tensor
) -> Tensor:
    """loss_N of the target title, weighted."""
    rows, horizon_head = batch.rows, network.horizon_head
    query_NP = network.query(hidden_ND, rows.horizon_N) * horizon_head.scale
    title_MP = network.candidates(tower_MD)
    positive_NP = title_MP.index_select(0, batch.positive_N)
    negative_SP = title_MP.index_select(0, batch.negative_S)
    negatives = negative_SP, batch.positive_N, batch.negative_S
    loss_N: Tensor = sampled_softmax_loss(query_NP, positive_NP, *negatives, batch.log_expected_S, weight_N)
    return loss_N


def _task_losses(
    network: Network, batch: TrainingBatch, titles: TitleInputs, tower_MD: Tensor, hidden_ND: Tensor
) -> Tensor:
    """loss_N summed over the auxiliary tasks, unweighted; 0 for rows of a later horizon."""
    assert titles.genres_VG is not None
    first_N = torch.nonzero(batch.rows.horizon_N == 0).flatten()
    title_ND = tower_MD.index_select(0, batch.positive_N[first_N])
    action_N, genres_NG = batch.rows.action_N[first_N], titles.genres_VG[batch.rows.title_N[first_N]]
    inputs = hidden_ND.index_select(0, first_N), title_ND, action_N, genres_NG
    losses = [network.task_head(name).losses(*inputs) for name in network.settings.tasks]
    return hidden_ND.new_zeros(len(hidden_ND)).index_add(0, first_N, torch.stack(losses).sum(0))


def train_step(
    network: Network,
    optimizers: Optimizers,
    titles: TitleInputs,
    windows: Windows,
    settings: ObjectiveSettings,
    generator: Generator,
) -> StepReport:
    """Take one training step on these windows; all random numbers come from `generator`."""
    batch = build_batch(windows, titles, network.settings.horizons, settings, generator)
    if batch is None:
        return StepReport(0.0, 0, False)
    id_MI = optimizers.rows.table_VI[batch.title_M].requires_grad_()
    share_N = batch.rows.weight_N / batch.rows.weight_N.sum()
    optimizers.dense.zero_grad()
    encoded = _encode(network, batch, titles, id_MI, generator)
    loss_N = title_N = _title_losses(network, batch, *encoded, share_N)
    if network.settings.tasks:
        task_N = share_N * _task_losses(network, batch, titles, *encoded)
        loss_N = settings.title_weight * title_N + settings.task_weight * task_N
    torch.autograd.backward(loss_N.sum())
    accepted = optimizers.dense.accept_step()
    if accepted:
        optimizers.dense.step()
        assert id_MI.grad is not None
        optimizers.rows.update(batch.title_M, id_MI.grad)
    first_N = batch.rows.horizon_N == 0
    loss = float(title_N.detach()[first_N].sum() / share_N[first_N].sum())
    return StepReport(loss, int(first_N.sum()), not accepted)
