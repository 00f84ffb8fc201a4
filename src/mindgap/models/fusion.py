"""Fusion of modality tokens into one vector: a transformer encoder that never attends to an absent token."""

import torch
from torch import Tensor, nn


class TransformerFusion(nn.Module):
    """Transformer encoder over modality tokens, mean over the present ones (paper, A.2).

    Pre-norm and a mean instead of a class token: with few labels the two reach a balanced accuracy of 0.43
    where post-norm with a class token reaches 0.29. A sample with nothing present fuses to zeros, so that the
    classifier answers with its bias: the value of the empty coalition.
    """

    def __init__(
        self, modalities: int, width: int, layers: int, heads: int, feedforward: int, dropout: float
    ):
        super().__init__()
        self.out_features = width
        self.modality_MD = nn.Parameter(torch.zeros(modalities, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, feedforward, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )

    def forward(self, tokens_NMD: Tensor, present_NM: Tensor) -> Tensor:
        # A row without a present token would be all masked, which attention answers with NaN.
        attend_NM = present_NM | ~present_NM.any(dim=1, keepdim=True)
        # Attention weighs a masked token by 0, which a NaN or an infinity would survive.
        tokens_NMD = tokens_NMD.masked_fill(~present_NM.unsqueeze(-1), 0.0) + self.modality_MD
        out_NMD = self.encoder(tokens_NMD, src_key_padding_mask=~attend_NM)
        weight_NM = present_NM.to(out_NMD.dtype)
        weight_NM = weight_NM / weight_NM.sum(dim=1, keepdim=True).clamp(min=1)
        return (out_NMD * weight_NM.unsqueeze(-1)).sum(dim=1)
