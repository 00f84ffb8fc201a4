"""Late fusion: the sum, or the mean, of the logits of the modalities that are there."""

from typing import Literal

from torch import Tensor, nn

from mindgap.parts.fusions.weighing import blocks, there

# Axes: N samples, M modalities, D width.


class SumLogitsFusion(nn.Module):
    """Sum (or mean) of the logits of each present modality, of which each has a linear layer of its own.

    As features these are blocks, so that the model's linear layer is those of all modalities side by side.
    Its bias is added once: with nothing present it is the answer.
    """

    def __init__(self, modalities: int, width: int, reduction: Literal["sum", "mean"] = "sum"):
        super().__init__()
        self.reduction, self.out_features = reduction, modalities * (width + 1)

    def forward(self, tokens_NMD: Tensor, present_NM: Tensor) -> Tensor:
        weight_NM = present_NM.to(tokens_NMD.dtype)
        if self.reduction == "mean":
            weight_NM = weight_NM / weight_NM.sum(dim=1, keepdim=True).clamp(min=1)
        return blocks(there(tokens_NMD, present_NM), weight_NM)
