"""Multi-loss: each modality has a linear head on its token, with a loss of its own.

    L = CE(l, y) + weight * sum_m CE(W_m z_m + b_m, y)

with l the fused logits and z_m the token (D) of modality m. A known strong baseline: Wang et al. 2020
(Gradient Blending) and Peng et al. 2022 compare with it; BalanceBenchmark has it as the sum with weight 1.
Ours: the mean of a head's loss is over the samples that have its modality, so one with a single modality
teaches that head alone; the heads are thrown away after a training.
"""

import torch
from torch import Tensor, nn

from mindgap.parts.mitigations.alone import Strength, losses, mean_where
from mindgap.parts.mitigations.base import Mitigation, Network, Step


class Heads(nn.ModuleList):
    """A linear head for each modality: tokens B x M x D to logits B x M x C."""

    def __init__(self, model: Network):
        width, classes = model.spec.width, model.head.out_features
        super().__init__(nn.Linear(width, classes) for _ in model.modalities)
        self.to(model.head.weight)

    def forward(self, tokens_BMD: Tensor) -> Tensor:
        return torch.stack([head(tokens_BMD[:, m]) for m, head in enumerate(self)], dim=1)

    def losses(self, step: Step) -> Tensor:
        """M: the mean loss of each head over the samples that have its modality."""
        return mean_where(losses(self(step.tokens), step.labels), step.present)


class MultiLoss(Mitigation):
    """A head and a loss for each modality beside the fused one; `weight` is that of each of their losses."""

    def __init__(self, weight: Strength = 1.0):
        self.weight = weight

    def start(self, model: Network, epochs: int) -> nn.Module | None:
        self.heads = Heads(model) if self.weight else None
        return self.heads

    def loss(self, step: Step) -> Tensor:
        if not self.weight:
            return super().loss(step)
        return super().loss(step) + self.weight * self.heads.losses(step).sum()
