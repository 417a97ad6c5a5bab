"""Title tower: one vector a title, from its text and, as evidence comes in, from its own events.

`v = psi(id, phi(semantic))`. A title is scorable from its text the moment it launches: the id counts in by its
evidence, `g = n / (n + c)` for `n` events so far, and what is missing of it is one learned `OOV` vector. Masking an id
in training is the same as having no evidence, so that the network meets in training what it meets at a launch. The
same tower makes history tokens and candidates.
Source: arXiv 2605.23312, figure 6 (towers and masking).

V titles · S dims of the text vector · E dims of an id row · D width
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


class TitleTower(nn.Module):
    """Title vectors from text vectors, id rows and the evidence behind them."""

    def __init__(self, d_text: int, d_id: int, width: int, id_evidence: float, semantic: bool = True) -> None:
        super().__init__()
        self.id_evidence, self.semantic = id_evidence, semantic
        self.text = nn.Linear(d_text, width)
        self.text_out = nn.Linear(width, width, bias=False)
        self.no_text = nn.Parameter(torch.randn(width) * 0.02)
        self.id = nn.Linear(d_id, width, bias=False)
        self.oov = nn.Parameter(torch.zeros(width))
        self.mix = nn.Linear(2 * width, width)
        self.popular = nn.Parameter(torch.zeros(width))
        self.mix_out = nn.Linear(width, width, bias=False)

    def forward(self, semantic_VS: Tensor, id_VE: Tensor | None, evidence_V: Tensor) -> Tensor:
        """tower_VD. `evidence_V`: events so far, 0 where the id is masked or absent. A zero text row: no text."""
        text_VD = self._phi(semantic_VS)
        return self._psi(self._id(id_VE, evidence_V), text_VD) + torch.outer(evidence_V.log1p(), self.popular)

    def _phi(self, semantic_VS: Tensor) -> Tensor:
        if not self.semantic:
            return self.no_text.expand(len(semantic_VS), -1)
        known_V1 = semantic_VS.any(1, keepdim=True)
        # Rows come with unit length; the linear layer expects elements of about one.
        hidden_VD = silu(self.text(semantic_VS * semantic_VS.shape[1] ** 0.5))
        return torch.where(known_V1, self.text_out(hidden_VD), self.no_text)

    def _id(self, id_VE: Tensor | None, evidence_V: Tensor) -> Tensor:
        if id_VE is None:
            return self.oov.expand(len(evidence_V), -1)
        gate_V1 = (evidence_V / (evidence_V + self.id_evidence)).unsqueeze(1)
        known_VD: Tensor = self.id(id_VE)
        return torch.lerp(self.oov, known_VD, gate_V1)

    def _psi(self, id_VD: Tensor, text_VD: Tensor) -> Tensor:
        mixed_VD: Tensor = self.mix_out(silu(self.mix(torch.cat([id_VD, text_VD], 1))))
        return id_VD + text_VD + mixed_VD
