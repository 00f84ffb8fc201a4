"""MMPareto (Wei and Hu, ICML 2024): weigh the gradients of the fused and of each own loss so that they agree.

Each modality has a linear head with a loss of its own, as in multi-loss. For the weights of encoder m, g the
gradient of the fused loss and h that of the head's:

    a = b = 1/2 where cos(g, h) > 0; else the a + b = 1 with the shortest a g + b h
    the step's: gamma * d * max(1, |g + h| / |d|), with d = 2 (a g + b h)

All other weights get the plain sum. Ours: an encoder is all weights before the fusion; a head's loss is a
mean over the samples that have its modality, and an encoder that no sample of a batch has is not changed;
a batch with fewer than two modalities takes the plain sum for all weights.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mindgap.parts.mitigations.alone import Strength, owners, represented
from mindgap.parts.mitigations.base import Mitigation, Network, Step
from mindgap.parts.mitigations.multi_loss import Heads


class MMPareto(Mitigation):
    """Encoders follow the fused and their own head's loss by Pareto weights; `weight` is that of the heads'
    losses (0: plain training), `gamma` stretches the encoders' gradients.
    """

    def __init__(self, weight: Strength = 1.0, gamma: Strength = 1.5):
        self.weight, self.gamma = weight, gamma

    def start(self, model: Network, epochs: int) -> nn.Module | None:
        self.heads = Heads(model) if self.weight else None
        return self.heads

    def loss(self, step: Step) -> Tensor | dict[str, Tensor]:
        if not self.weight:
            return super().loss(step)
        # Each encoder gets its own head's alone, so one sum serves them all.
        return {"fused": super().loss(step), "alone": self.weight * self.heads.losses(step).sum()}

    def gradients(self, step: Step, gradients: Mapping[str, Sequence[Tensor]]) -> Sequence[Tensor]:
        summed_P = list(super().gradients(step, gradients))
        if not self.weight:
            return summed_P
        owner_P = owners(step.model)
        for m, weighed in enumerate(represented(step.present)):
            own = [k for k, owner in enumerate(owner_P) if owner == m]
            fused, alone = ([gradients[name][k] for k in own] for name in ("fused", "alone"))
            first, second = self._weights(fused, alone)
            for k, g, h in zip(own, fused, alone, strict=True):
                both = first.to(g.dtype) * g + second.to(g.dtype) * h
                summed_P[k] = torch.where(weighed, both, summed_P[k])
        return summed_P

    def _weights(self, g_P: Sequence[Tensor], h_P: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What the two gradients are multiplied by."""
        gg, hh, gh = _dot(g_P, g_P), _dot(h_P, h_P), _dot(g_P, h_P)
        tiny = torch.finfo(gg.dtype).tiny
        shortest = ((hh - gh) / (gg + hh - 2 * gh).clamp(min=tiny)).clamp(0, 1)
        a = torch.where(gh > 0, torch.full_like(gg, 0.5), shortest)
        square = 4 * (a * a * gg + (1 - a) * (1 - a) * hh + 2 * a * (1 - a) * gh)
        stretch = ((gg + hh + 2 * gh).clamp(min=0) / square.clamp(min=tiny)).sqrt().clamp(min=1)
        factor = 2 * self.gamma * stretch
        return factor * a, factor * (1 - a)


def _dot(one_P: Sequence[Tensor], other_P: Sequence[Tensor]) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(one_P, other_P, strict=True)]).sum()
