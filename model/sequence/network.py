"""The sequence network: title tower, backbone and horizon head, applied to windows of user histories.

Each event is one token: the title's vector, the action, and the time from the event to the query time. A window begins
with a start token, so the first event of a user is predicted too, and an unknown user is an empty window. A window that
is truncated from a longer history has another start token, or the network would mistake it for a new user's history.
The token before event `i` has the time of event `i` as its query time. In serving, the query time of the last token is
the current time.

B windows · L events of a window · R packed rows · T token positions of a row or window · X = R * T flat positions
V titles · M distinct titles of a training step · N rows of a flat batch · E width of a text embedding
I width of an id embedding · D width of the backbone · P width of the scoring space
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Generator, Tensor, nn

from model.sequence.backbone import (
    MASKED_BUCKET,
    TIME_BUCKETS,
    Backbone,
    PackedLayout,
    dropout,
    flat_positions,
    pack,
    pair_buckets,
    time_bucket,
)
from model.sequence.horizon_head import HorizonHead
from model.sequence.tasks import TASKS, TaskHead
from model.sequence.title_tower import TOKEN_INIT_STD, TitleTower
from model.settings import BackboneSize, NetworkSettings

ENCODE_BATCH: Final = 32  # windows encoded together in serving; their activations almost fit the processor's cache


@dataclass(frozen=True)
class Windows:
    """Bounded histories, oldest event first, left-aligned."""

    title_BL: Tensor  # int64 catalog row; -1: unknown title, padding
    action_BL: Tensor  # int64 action code
    time_BL: Tensor  # int64, ms
    weight_BL: Tensor  # float32 loss weight of predicting this event from the earlier ones; 0 in serving
    length_B: Tensor  # int64, number of events
    truncated_B: Tensor | None = None  # bool, whether the user has events before the window; None: no window does

    def __len__(self) -> int:
        return len(self.length_B)

    def select(self, part_N: Tensor) -> "Windows":
        """The windows at these indices, padded to the longest of them."""
        longest = int(self.length_B[part_N].max()) if len(part_N) else 0
        title_BL, action_BL, time_BL, weight_BL = (
            value_BL[part_N, :longest] for value_BL in (self.title_BL, self.action_BL, self.time_BL, self.weight_BL)
        )
        truncated_B = None if self.truncated_B is None else self.truncated_B[part_N]
        return Windows(title_BL, action_BL, time_BL, weight_BL, self.length_B[part_N], truncated_B)


@dataclass(frozen=True)
class TitleInputs:
    """The catalog as a training step sees it, from before the events that the step learns."""

    semantic_VE: Tensor  # float32 text embeddings with unit rows; a row of zeros has no text
    id_VI: Tensor  # float32 id embeddings, the table that `RowwiseAdagrad` updates
    count_V: Tensor  # float32 events so far
    launched_C: Tensor  # int64 rows of the launched titles
    frequency_V: Tensor | None = None  # float32 recent event frequency, any scale; None: uniform negatives only
    genres_VG: Tensor | None = None  # int16 genre codes, -1 for none; for auxiliary tasks only


@dataclass(frozen=True)
class PackedTokens:
    """The backbone's input: windows packed into rows, each window with a start token."""

    layout: PackedLayout
    title_RT: Tensor  # index of the title's vector, or one of the two constants below
    action_RT: Tensor  # action code; 0 for a start token
    time_RT: Tensor  # of the token's event, ms
    query_time_RT: Tensor  # of the prediction at this token, ms

    def positions(self, window_N: Tensor, token_N: Tensor) -> Tensor:
        """Flat positions of these tokens; token `i` of a window predicts its event `i`."""
        return torch.from_numpy(self.layout.start_B)[window_N] + token_N


INPUT_INIT_STD: Final = 0.1  # of the embeddings of actions and gaps; not measured
UNKNOWN_TITLE: Final = -1  # an unknown title, a start token, padding
TRUNCATED_START: Final = -2  # the start token of a truncated window


def pack_tokens(windows: Windows, now_B: Tensor | None) -> PackedTokens:
    """Pack windows into rows.

    Without `now_B` (training) the last event is a target only. With it (serving) the last event is a token too, with
    `now_B` (ms) as its query time.
    """
    length_B, time_BL = windows.length_B, windows.time_BL
    first_B1 = time_BL[:, :1] if time_BL.shape[1] else time_BL.new_zeros(len(windows), 1)
    if now_B is not None:
        first_B1 = torch.where(length_B[:, None] > 0, first_B1, now_B[:, None])
    end_B1 = (length_B * 0 if now_B is None else now_B)[:, None]
    query_time_BT = torch.cat([time_BL, end_B1], 1).scatter(1, length_B[:, None], end_B1)
    count_B = length_B + (now_B is not None)
    layout = pack(count_B.numpy())
    truncated_B = torch.zeros_like(length_B, dtype=torch.bool) if windows.truncated_B is None else windows.truncated_B
    start_B1 = torch.where(truncated_B, TRUNCATED_START, UNKNOWN_TITLE)[:, None]
    used_BT = torch.arange(query_time_BT.shape[1]) < count_B[:, None]
    position_N = torch.from_numpy(flat_positions(layout.start_B, count_B.numpy()))

    def pack_values(start: int | Tensor, value_BL: Tensor, fill: int) -> Tensor:
        value_BT = torch.cat([torch.as_tensor(start).expand(len(windows), 1), value_BL], 1)
        packed_X = value_BT.new_full((layout.rows * layout.capacity,), fill)
        return packed_X.index_copy_(0, position_N, value_BT[used_BT]).view(layout.rows, layout.capacity)

    return PackedTokens(
        layout,
        pack_values(start_B1, windows.title_BL, UNKNOWN_TITLE),
        pack_values(0, windows.action_BL, 0),
        pack_values(first_B1, time_BL, 0),
        pack_values(query_time_BT[:, :1], query_time_BT[:, 1:], 0),
    )


class Network(nn.Module):
    """Title tower, backbone and horizon head."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.tower = TitleTower(s.d_text, s.d_id, s.width, s.id_evidence, s.use_text)
        self.start = nn.Parameter(torch.randn(2, s.width) * TOKEN_INIT_STD)  # for TRUNCATED_START, UNKNOWN_TITLE
        self.action = nn.Embedding(s.actions, s.width)
        self.gap = nn.Embedding(TIME_BUCKETS, s.width)
        self.norm = nn.LayerNorm(s.width, bias=False)
        self.backbone = Backbone(BackboneSize(s.width, s.blocks, s.heads), s.max_history + 1)
        self.horizon_head = HorizonHead(s.width, s.d_out, len(s.horizons), s.temperature, s.min_temperature)
        for table in (self.action, self.gap):
            nn.init.normal_(table.weight, std=INPUT_INIT_STD)
        # Drawn last, so that auxiliary tasks do not change the other initial weights.
        self.task_heads = nn.ModuleDict({name: TaskHead(TASKS[name], s.width) for name in s.tasks})

    def title_vectors(
        self, semantic_VE: Tensor, id_VI: Tensor | None, evidence_V: Tensor, mask_V: Tensor | None = None
    ) -> Tensor:
        """tower_VD; where `mask_V` is true, the id has no evidence."""
        if mask_V is not None:
            evidence_V = evidence_V.masked_fill(mask_V, 0.0)
        tower_VD: Tensor = self.tower(semantic_VE, id_VI, evidence_V)
        return tower_VD

    def forward(self, tower_MD: Tensor, packed: PackedTokens, generator: Generator | None = None) -> Tensor:
        """hidden_XD of every position; a generator turns dropout on."""
        token_RTD, bucket_RTT = self._embed(tower_MD, packed)
        rate = self.settings.dropout
        hidden_RTD: Tensor = self.backbone(dropout(token_RTD, rate, generator), bucket_RTT, rate, generator)
        return hidden_RTD.flatten(0, 1)

    def forward_at(self, tower_MD: Tensor, packed: PackedTokens, position_N: Tensor) -> Tensor:
        """hidden_ND at these flat positions only, without dropout; cheaper than `forward`, for serving."""
        return self.backbone.forward_at(*self._embed(tower_MD, packed), position_N)

    def _embed(self, tower_MD: Tensor, packed: PackedTokens) -> tuple[Tensor, Tensor]:
        title_RTD = self._title_tokens(tower_MD, packed.title_RT.flatten()).view(*packed.title_RT.shape, -1)
        gap_RT = time_bucket(packed.query_time_RT - packed.time_RT)
        token_RTD = self.norm(title_RTD + self.action(packed.action_RT) + self.gap(gap_RT))
        bucket_RTT = pair_buckets(packed.layout, packed.time_RT, packed.query_time_RT)
        if not self.settings.time_bias:
            bucket_RTT = bucket_RTT.masked_fill_(bucket_RTT != MASKED_BUCKET, 0)
        return token_RTD, bucket_RTT

    def _title_tokens(self, tower_MD: Tensor, title_X: Tensor) -> Tensor:
        """The vector of each token's title. The table of all titles is not copied."""
        table_MD = tower_MD if len(tower_MD) else tower_MD.new_zeros(1, self.start.shape[1])
        title_XD = table_MD.index_select(0, title_X.clamp(min=0))
        start_XD = self.start.index_select(0, (title_X + len(self.start)).clamp(max=len(self.start) - 1))
        return torch.where((title_X < 0)[:, None], start_XD, title_XD)

    def query(self, hidden_ND: Tensor, horizon_N: Tensor) -> Tensor:
        """q_NP of unit length; `horizon_N` are indices into `settings.horizons`."""
        q_NP: Tensor = self.horizon_head.query(hidden_ND, horizon_N)
        return q_NP

    def candidates(self, tower_VD: Tensor) -> Tensor:
        """e_VP of unit length."""
        e_VP: Tensor = self.horizon_head.candidates(tower_VD)
        return e_VP

    def task_head(self, task: str) -> TaskHead:
        """The head of one of `settings.tasks`."""
        head = self.task_heads[task]
        assert isinstance(head, TaskHead)
        return head


@torch.no_grad()
def encode_titles(network: Network, titles: TitleInputs) -> tuple[Tensor, Tensor]:
    """(tower_VD, e_VP) of these titles."""
    tower_VD = network.title_vectors(titles.semantic_VE, titles.id_VI, titles.count_V)
    return tower_VD, network.candidates(tower_VD)


@torch.no_grad()
def encode_users(network: Network, tower_VD: Tensor, windows: Windows, now_B: Tensor) -> Tensor:
    """hidden_BD after each window's last event, with query time `now_B` (ms); an unknown user is an empty window."""
    hidden_BD = tower_VD.new_empty(len(windows), tower_VD.shape[1])
    for part in torch.split(windows.length_B.argsort(stable=True), ENCODE_BATCH):
        selected = windows.select(part)
        packed = pack_tokens(selected, now_B[part])
        last_N = packed.positions(torch.arange(len(part)), selected.length_B)
        hidden_BD[part] = network.forward_at(tower_VD, packed, last_N)
    return hidden_BD


@torch.no_grad()
def encode_events(network: Network, tower_VD: Tensor, windows: Windows, window_N: Tensor, event_N: Tensor) -> Tensor:
    """hidden_ND that predicts event `event_N` of window `window_N` from the events before it, at its time; one pass."""
    packed = pack_tokens(windows, None)
    hidden_XD: Tensor = network(tower_VD, packed)
    return hidden_XD[packed.positions(window_N, event_N)]
