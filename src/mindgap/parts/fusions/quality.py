"""Late fusion weighed by quality: how sure each modality alone is says how much its logits count."""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mindgap.parts.fusions.weighing import Weighing, blocks

# Axes: N samples, M modalities, D width, C classes.


class QualityFusion(Weighing):
    """Logits of each present modality, weighed by softmax(quality / temperature) over the present ones.

    The quality of a modality is read off its own prediction: the largest probability, or the negative entropy
    over log C. No gradient goes through it: a model could else earn weight by being sure of anything.
    """

    def __init__(
        self,
        modalities: int,
        width: int,
        quality: Literal["confidence", "negative_entropy"] = "confidence",
        temperature: Annotated[float, Field(ge=1e-3, le=1e3)] = 0.1,
    ):
        super().__init__()
        self.quality, self.temperature = quality, temperature
        self.modalities, self.out_features = modalities, modalities * (width + 1)

    def head(self, classes: int) -> nn.Linear:
        """The model's linear layer, which is read here too: its blocks are those of the modalities."""
        linear = nn.Linear(self.out_features, classes)
        self._read = (linear,)  # in a tuple it is no part of this module
        return linear

    def scores(self, tokens_NMD: Tensor, part_NME: Tensor, present_NM: Tensor) -> Tensor:
        log_probs_NMC = self.logits(part_NME).detach().log_softmax(dim=-1)
        probs_NMC = log_probs_NMC.exp()
        if self.quality == "confidence":
            return probs_NMC.amax(dim=-1) / self.temperature
        certainty_NM = (probs_NMC * log_probs_NMC).sum(dim=-1) / math.log(log_probs_NMC.shape[-1])
        return certainty_NM / self.temperature

    def logits(self, tokens_NMD: Tensor) -> Tensor:
        """Of each modality alone: N x M x C."""
        alone_MM = torch.eye(self.modalities, dtype=tokens_NMD.dtype, device=tokens_NMD.device)
        return torch.stack([self._read[0](blocks(tokens_NMD, one_M[None])) for one_M in alone_MM], dim=1)

    def combine(self, part_NME: Tensor, weight_NM: Tensor) -> Tensor:
        return blocks(part_NME, weight_NM)
