"""Unimodal ensemble: each modality is trained alone, and only predictions are joined. A reference, no rival.

    L = (1 - strength) * CE(l, y) + strength * sum_m mean_{i has m} CE(l(m), y)

with l(m) the logits of a pass of the fusion with m alone. Few methods of balancing beat it (BalanceBenchmark,
2502.10816). At a strength of 1 no loss sees two modalities at once; with the fusion that sums logits the
model is then the ensemble itself, with another one the fusion joins what it never saw together. Ours.
"""

from torch import Tensor

from mindgap.base.settings import Share
from mindgap.parts.mitigations.alone import each_alone, losses, mean_where
from mindgap.parts.mitigations.base import Mitigation, Step


class UnimodalEnsemble(Mitigation):
    """Each modality is trained by itself; a `strength` of 0 is plain training, 1 has no fused loss."""

    def __init__(self, strength: Share = 1.0):
        self.strength = strength

    def loss(self, step: Step) -> Tensor:
        if not self.strength:
            return super().loss(step)
        alone = mean_where(losses(each_alone(step), step.labels), step.present).sum()
        return (1 - self.strength) * super().loss(step) + self.strength * alone
