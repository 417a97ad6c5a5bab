"""Title tower: one vector per title from its text embedding and its id embedding.

`v = psi(id, phi(text))`. A title can be scored from its text as soon as it launches. The id embedding is gated by its
evidence, `g = n / (n + c)` for `n` events so far; one learned out-of-vocabulary vector fills the remaining weight.
Masking an id in training is the same as having no evidence, so training covers the situation at a launch. The same
tower encodes the titles of histories and the candidates.
Source: arXiv 2605.23312, figure 6 (towers and masking).

V titles · E width of a text embedding · I width of an id embedding · D width of the backbone
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

TOKEN_INIT_STD: Final = 0.02  # of learned vectors that stand for a missing input; not measured


class TitleTower(nn.Module):
    """Title vectors from text embeddings, id embeddings and the number of events behind each id."""

    def __init__(self, d_text: int, d_id: int, width: int, id_evidence: float, use_text: bool = True) -> None:
        super().__init__()
        self.id_evidence, self.use_text = id_evidence, use_text
        self.text = nn.Linear(d_text, width)
        self.text_out = nn.Linear(width, width, bias=False)
        self.no_text = nn.Parameter(torch.randn(width) * TOKEN_INIT_STD)
        self.id = nn.Linear(d_id, width, bias=False)
        self.oov = nn.Parameter(torch.zeros(width))
        self.mix = nn.Linear(2 * width, width)
        self.popularity = nn.Parameter(torch.zeros(width))
        self.mix_out = nn.Linear(width, width, bias=False)

    def forward(self, semantic_VE: Tensor, id_VI: Tensor | None, evidence_V: Tensor) -> Tensor:
        """tower_VD.

        `evidence_V` is the number of events so far, 0 for a masked or absent id. A row of zeros in `semantic_VE` means
        that the title has no text.
        """
        text_VD = self._phi(semantic_VE)
        return self._psi(self._id(id_VI, evidence_V), text_VD) + torch.outer(evidence_V.log1p(), self.popularity)

    def _phi(self, semantic_VE: Tensor) -> Tensor:
        if not self.use_text:
            return self.no_text.expand(len(semantic_VE), -1)
        has_text_V1 = semantic_VE.any(1, keepdim=True)
        # The rows have unit length; the linear layer expects elements of magnitude one.
        hidden_VD = silu(self.text(semantic_VE * semantic_VE.shape[1] ** 0.5))
        return torch.where(has_text_V1, self.text_out(hidden_VD), self.no_text)

    def _id(self, id_VI: Tensor | None, evidence_V: Tensor) -> Tensor:
        if id_VI is None:
            return self.oov.expand(len(evidence_V), -1)
        gate_V1 = (evidence_V / (evidence_V + self.id_evidence)).unsqueeze(1)
        id_VD: Tensor = self.id(id_VI)
        return torch.lerp(self.oov, id_VD, gate_V1)

    def _psi(self, id_VD: Tensor, text_VD: Tensor) -> Tensor:
        mixed_VD: Tensor = self.mix_out(silu(self.mix(torch.cat([id_VD, text_VD], 1))))
        return id_VD + text_VD + mixed_VD
