"""Unimodal loss: the model answers for each modality alone too; ours, a mitigation.

For sample i with modalities m of P_i, l_i its logits and l_i(m) those of a pass of the fusion and the head
with m alone, the loss is the mean over i of

    (CE(l_i, y_i) + weight * sum_{m in P_i} CE(l_i(m), y_i)) / (1 + weight * |P_i|)

so a sample with one modality counts as in plain training, and steps are no larger. Multi-loss trains heads
that are thrown away, ModDrop single modalities in the place of all together; here the model that is asked
afterwards learns both in each step. A pass of the fusion for each modality more; encoders run once.
"""

from torch import Tensor
from torch.nn.functional import cross_entropy

from mindgap.parts.mitigations.alone import Strength, each_alone, losses
from mindgap.parts.mitigations.base import Mitigation, Step


class UnimodalLoss(Mitigation):
    """The loss of each modality alone beside the fused one, `weight` times; 0 is plain training."""

    def __init__(self, weight: Strength = 1.0):
        self.weight = weight

    def loss(self, step: Step) -> Tensor:
        if not self.weight:
            return super().loss(step)
        fused_B = cross_entropy(step.logits, step.labels, reduction="none")
        has_BM = step.present.to(fused_B.dtype)
        alone_BM = losses(each_alone(step), step.labels) * has_BM
        count_B = has_BM.sum(1)
        return step.mean((fused_B + self.weight * alone_BM.sum(1)) / (1 + self.weight * count_B))
