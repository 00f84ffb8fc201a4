"""Concatenation: tokens side by side, a learned embedding in the place of an absent one, a hidden layer."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import gelu

from mindgap.base.settings import Rate

# Axes: N samples, M modalities, D width, H hidden.


class ConcatFusion(nn.Module):
    """Tokens side by side, then a hidden layer (GELU), as wide as a token if `hidden` is not given.

    In the place of an absent token stands an embedding of its modality, which is learned: zeros could not be
    told from a token of zeros. A sample with nothing present fuses to zeros.
    """

    def __init__(
        self,
        modalities: int,
        width: int,
        hidden: Annotated[int, Field(ge=1, le=4_096)] | None = None,
        dropout: Rate = 0.0,
    ):
        super().__init__()
        self.out_features = hidden or width
        self.absent_modality_MD = nn.Parameter(torch.zeros(modalities, width))
        self.wide, self.drop = nn.Linear(modalities * width, self.out_features), nn.Dropout(dropout)

    def forward(self, tokens_NMD: Tensor, present_NM: Tensor) -> Tensor:
        filled_NMD = torch.where(present_NM.unsqueeze(-1), tokens_NMD, self.absent_modality_MD)
        fused_NH = self.drop(gelu(self.wide(filled_NMD.flatten(1))))
        return fused_NH * present_NM.any(dim=1, keepdim=True)
