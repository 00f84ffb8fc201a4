"""Cross-attention: each modality looks at the others, then attention pools what they became."""

import torch
from torch import Tensor, nn

from mindgap.base.settings import Rate, Width
from mindgap.parts.fusions.transformer import Layer
from mindgap.parts.fusions.weighing import Weighing

# Axes: N samples, M modalities, D width, H heads, E width of a head.


class CrossAttentionFusion(Weighing):
    """Each token attends to those of the other present modalities, then learned attention pools them.

    Crossmodal attention as in MulT (Tsai et al. 2019), over one token a modality; a modality that is alone
    attends to nothing. The shares of the pooling (Ilse et al. 2018) are the reliabilities.
    """

    def __init__(
        self, modalities: int, width: int, heads: Width = 4, feedforward: Width = 128, dropout: Rate = 0.0
    ):
        super().__init__()
        if width % heads:
            raise ValueError(f"heads ({heads}) must divide width ({width})")
        self.out_features = width
        self.modality_MD = nn.Parameter(torch.zeros(modalities, width))
        self.layer, self.norm = CrossLayer(width, heads, feedforward, dropout), nn.LayerNorm(width)
        self.pool = nn.Linear(width, 1)

    def parts(self, tokens_NMD: Tensor, present_NM: Tensor) -> Tensor:
        return self.norm(self.layer(tokens_NMD + self.modality_MD, present_NM))

    def scores(self, tokens_NMD: Tensor, part_NME: Tensor, present_NM: Tensor) -> Tensor:
        return self.pool(part_NME).squeeze(-1)


class CrossLayer(Layer):
    """The transformer's layer, in which no token attends to itself."""

    def _attended(self, x_NMD: Tensor, attend_NM: Tensor) -> Tensor:
        heads_NMHE = self.query_key_value(x_NMD).unflatten(-1, (3 * self.heads, -1))
        query, key, value = heads_NMHE.transpose(1, 2).chunk(3, dim=1)
        itself_MM = torch.eye(x_NMD.shape[1], dtype=torch.bool, device=x_NMD.device)
        other_NMM = attend_NM.unsqueeze(1) & ~itself_MM
        score_NHMM = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        score_NHMM = score_NHMM.masked_fill(~other_NMM.unsqueeze(1), torch.finfo(score_NHMM.dtype).min)
        weight_NHMM = self.drop[3](score_NHMM.softmax(dim=-1)) * other_NMM.unsqueeze(1)
        attended_NMD = (weight_NHMM.to(value.dtype) @ value).transpose(1, 2).flatten(2)
        return self.out(attended_NMD) * other_NMM.any(dim=2).unsqueeze(-1)
