"""The network: title tower, backbone and decoder as one model, fed with windows of viewers' histories.

One token per event: the title's vector, what was done with it, and how long after it the prediction is asked for. A
window begins with a start token, so that a viewer's first event is predicted too, and a viewer whom nobody has seen is
simply an empty window; a window cut out of a longer history begins with another one, or else the network would take the
middle of a history for its beginning. The token before event `i` is asked at the time of event `i`; the last one in
serving, now.

B windows · L events · R packed rows · C slots a row · X = R * C flat slots · V titles · U titles of one step · S text
dims · E id dims · D width · N rows asked for · P dims of the product
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Generator, Tensor, nn

from model.sequence.backbone import (
    HIDDEN,
    PRESETS,
    TIME_BUCKETS,
    Backbone,
    Dims,
    Layout,
    dropout,
    pack,
    pair_buckets,
    slots,
    time_bucket,
)
from model.sequence.horizon_head import HorizonHead
from model.sequence.tasks import TASKS, Head
from model.sequence.title_tower import TitleTower

ENCODED: Final = 32  # windows encoded at once in serving: what they need stays in the processor's cache, nearly


@dataclass(frozen=True)
class NetworkSettings:
    """Shape of the network; what training does with it is `model.sequence.objective.ObjectiveSettings`."""

    width: int = 64
    blocks: int = 2
    heads: int = 2
    history: int = 100  # most events of a window
    d_text: int = 256  # dims of the text vector
    d_id: int = 64  # dims of an id row
    d_out: int = 64  # dims of the product between query and candidate
    actions: int = 16  # action codes; 0 is the start of a window
    horizons: tuple[int, ...] = (0, 3, 10)  # delays in events, one list each
    temperature: float = 0.07  # at the start; it is learned
    coldest: float = 0.02  # lowest temperature
    id_evidence: float = 3.0  # events at which an id counts as much as no id
    dropout: float = 0.3
    semantic: bool = True  # whether titles' texts are read; without, ids and counts alone
    time_bias: bool = True  # whether attention knows how long ago things were
    tasks: tuple[str, ...] = ()  # beside the next title, of `model.sequence.tasks`


def preset(name: str, horizons: tuple[int, ...] = NetworkSettings.horizons) -> NetworkSettings:
    """The network of that size (`model.sequence.backbone.PRESETS`). Its decoder works in an eighth of the width, as the paper's
    does, or in 64 dims where that is more. Raises KeyError for a size that there is not."""
    dims = PRESETS[name]
    d_out = max(NetworkSettings.d_out, dims.width // 8)
    return NetworkSettings(dims.width, dims.blocks, dims.heads, d_out=d_out, horizons=horizons)


@dataclass(frozen=True)
class Windows:
    """Bounded histories, oldest event first, left-aligned."""

    title_BL: Tensor  # int64 row of the catalogue; -1: a title that it does not know, and padding
    action_BL: Tensor  # int64
    time_BL: Tensor  # int64, ms
    weight_BL: Tensor  # float32 loss weight of predicting this event from those before it; 0 in serving
    length_B: Tensor  # int64, events in use
    cut_B: Tensor | None = None  # bool, whether the history goes further back than the window; None: none does

    def __len__(self) -> int:
        return len(self.length_B)

    def take(self, part_N: Tensor) -> "Windows":
        """These windows, no longer than the longest of them."""
        longest = int(self.length_B[part_N].max()) if len(part_N) else 0
        title_BL, action_BL, time_BL, weight_BL = (
            value_BL[part_N, :longest] for value_BL in (self.title_BL, self.action_BL, self.time_BL, self.weight_BL)
        )
        cut_B = None if self.cut_B is None else self.cut_B[part_N]
        return Windows(title_BL, action_BL, time_BL, weight_BL, self.length_B[part_N], cut_B)


@dataclass(frozen=True)
class TitleInputs:
    """What a step may know of the catalogue: counts are from before the events that it learns."""

    semantic_VS: Tensor  # float32, unit rows; zero where there is no text
    id_VE: Tensor  # float32 id rows, the table that `RowwiseAdagrad` updates
    count_V: Tensor  # float32 events so far
    launched_M: Tensor  # int64 rows of the candidates
    frequency_V: Tensor | None = None  # float32 streaming frequency, any scale; None: negatives are drawn uniformly
    genres_VG: Tensor | None = None  # int16 codes, -1: none; for further tasks only


@dataclass(frozen=True)
class Tokens:
    """Windows as the backbone takes them: packed, with a start token each."""

    layout: Layout
    title_RC: Tensor  # place in the vectors given with them; UNKNOWN: start and padding too; EARLIER: start of a cut
    action_RC: Tensor
    time_RC: Tensor  # of the token's event, ms
    asked_RC: Tensor  # of the prediction made there, ms

    def slots(self, window_N: Tensor, token_N: Tensor) -> Tensor:
        """Flat slots of these tokens; token `i` is the one that event `i` is predicted from."""
        return torch.from_numpy(self.layout.start_B)[window_N] + token_N


UNKNOWN: Final = -1
EARLIER: Final = -2


def tokens(windows: Windows, now_B: Tensor | None) -> Tokens:
    """Pack windows. Without `now_B` the last event is a target only (training); with it, a prediction follows it."""
    length_B, time_BL = windows.length_B, windows.time_BL
    first_B1 = time_BL[:, :1] if time_BL.shape[1] else time_BL.new_zeros(len(windows), 1)
    if now_B is not None:
        first_B1 = torch.where(length_B[:, None] > 0, first_B1, now_B[:, None])
    end_B1 = (length_B * 0 if now_B is None else now_B)[:, None]
    asked_BT = torch.cat([time_BL, end_B1], 1).scatter(1, length_B[:, None], end_B1)
    count_B = length_B + (now_B is not None)
    layout = pack(count_B.numpy())
    cut_B = torch.zeros_like(length_B, dtype=torch.bool) if windows.cut_B is None else windows.cut_B
    start_B1 = torch.where(cut_B, EARLIER, UNKNOWN)[:, None]
    used_BT = torch.arange(asked_BT.shape[1]) < count_B[:, None]
    place_T = torch.from_numpy(slots(layout.start_B, count_B.numpy()))

    def spread(start: int | Tensor, value_BL: Tensor, fill: int) -> Tensor:
        value_BT = torch.cat([torch.as_tensor(start).expand(len(windows), 1), value_BL], 1)
        packed_X = value_BT.new_full((layout.rows * layout.capacity,), fill)
        return packed_X.index_copy_(0, place_T, value_BT[used_BT]).view(layout.rows, layout.capacity)

    return Tokens(
        layout,
        spread(start_B1, windows.title_BL, UNKNOWN),
        spread(0, windows.action_BL, 0),
        spread(first_B1, time_BL, 0),
        spread(asked_BT[:, :1], asked_BT[:, 1:], 0),
    )


class Network(nn.Module):
    """Tower, backbone and decoder."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.tower = TitleTower(s.d_text, s.d_id, s.width, s.id_evidence, s.semantic)
        self.start = nn.Parameter(torch.randn(2, s.width) * 0.02)  # of a cut window, of a whole one
        self.action = nn.Embedding(s.actions, s.width)
        self.gap = nn.Embedding(TIME_BUCKETS, s.width)
        self.norm = nn.LayerNorm(s.width, bias=False)
        self.backbone = Backbone(Dims(s.width, s.blocks, s.heads), s.history + 1)
        self.horizon_head = HorizonHead(s.width, s.d_out, len(s.horizons), s.temperature, s.coldest)
        for table in (self.action, self.gap):
            nn.init.normal_(table.weight, std=0.1)
        self.heads = nn.ModuleDict({name: Head(TASKS[name], s.width) for name in s.tasks})  # drawn last: others stay

    def title_vectors(
        self, semantic_VS: Tensor, id_VE: Tensor | None, evidence_V: Tensor, mask_V: Tensor | None = None
    ) -> Tensor:
        """tower_VD; where `mask_V` is true the id counts as absent."""
        if mask_V is not None:
            evidence_V = evidence_V.masked_fill(mask_V, 0.0)
        tower_VD: Tensor = self.tower(semantic_VS, id_VE, evidence_V)
        return tower_VD

    def forward(self, tower_UD: Tensor, packed: Tokens, generator: Generator | None = None) -> Tensor:
        """hidden_XD of every slot; a generator turns dropout on."""
        token_RCD, bucket_RCC = self._embed(tower_UD, packed)
        rate = self.settings.dropout
        hidden_RCD: Tensor = self.backbone(dropout(token_RCD, rate, generator), bucket_RCC, rate, generator)
        return hidden_RCD.flatten(0, 1)

    def at(self, tower_UD: Tensor, packed: Tokens, slot_N: Tensor) -> Tensor:
        """hidden_ND of these flat slots, without dropout: for serving, cheaper than all."""
        return self.backbone.at(*self._embed(tower_UD, packed), slot_N)

    def _embed(self, tower_UD: Tensor, packed: Tokens) -> tuple[Tensor, Tensor]:
        vector_UD = torch.cat([self.start, tower_UD])
        title_XD = vector_UD.index_select(0, packed.title_RC.flatten() + len(self.start)).view(
            *packed.title_RC.shape, -1
        )
        gap_RC = time_bucket(packed.asked_RC - packed.time_RC)
        token_RCD = self.norm(title_XD + self.action(packed.action_RC) + self.gap(gap_RC))
        bucket_RCC = pair_buckets(packed.layout, packed.time_RC, packed.asked_RC)
        if not self.settings.time_bias:
            bucket_RCC = bucket_RCC.masked_fill_(bucket_RCC != HIDDEN, 0)
        return token_RCD, bucket_RCC

    def query(self, hidden_ND: Tensor, horizon_N: Tensor) -> Tensor:
        """q_NP of unit length; `horizon_N` are places in `settings.horizons`."""
        q_NP: Tensor = self.horizon_head.query(hidden_ND, horizon_N)
        return q_NP

    def candidates(self, tower_VD: Tensor) -> Tensor:
        """e_VP of unit length."""
        e_VP: Tensor = self.horizon_head.candidates(tower_VD)
        return e_VP

    def head(self, task: str) -> Head:
        """Of one of the settings' further tasks."""
        head = self.heads[task]
        assert isinstance(head, Head)
        return head


@torch.no_grad()
def title_table(network: Network, titles: TitleInputs) -> tuple[Tensor, Tensor]:
    """(tower_VD, e_VP) of the whole catalogue."""
    tower_VD = network.title_vectors(titles.semantic_VS, titles.id_VE, titles.count_V)
    return tower_VD, network.candidates(tower_VD)


@torch.no_grad()
def encode_users(network: Network, tower_VD: Tensor, windows: Windows, now_B: Tensor) -> Tensor:
    """hidden_BD of each window's end, asked at `now_B` (ms); an empty window is a viewer nobody has seen."""
    hidden_BD = tower_VD.new_empty(len(windows), tower_VD.shape[1])
    for part in torch.split(windows.length_B.argsort(stable=True), ENCODED):
        some = windows.take(part)
        packed = tokens(some, now_B[part])
        hidden_BD[part] = network.at(tower_VD, packed, packed.slots(torch.arange(len(part)), some.length_B))
    return hidden_BD


@torch.no_grad()
def encode_events(network: Network, tower_VD: Tensor, windows: Windows, window_N: Tensor, event_N: Tensor) -> Tensor:
    """hidden_ND from which each named event is predicted: from those before it, asked at its time. One pass for all."""
    packed = tokens(windows, None)
    hidden_XD: Tensor = network(tower_VD, packed)
    return hidden_XD[packed.slots(window_N, event_N)]
