"""OGM-GE (Peng et al., CVPR 2022): slow down the encoder of the modality that is ahead.

Of each modality s_m is the mean probability that it alone gives the true class, and rho_m = s_m / s_other:

    k_m = 1 - tanh(alpha * rho_m) where rho_m > 1, else 1
    gradients of encoder m: k_m * g + N(0, std(g)^2)

As the authors' code has it: tanh(alpha * rho), so k jumps at rho = 1, and the noise has the deviation of the
unscaled gradient of each kernel. Ours: alone means a pass of the fusion with m only (the source splits the
weights of a concatenation); s_m is a mean over the samples that have m; of more than two modalities s_other
is the mean of the others; an encoder is all weights before the fusion, and the noise goes to matrices as to
kernels (some encoders have no kernel). A batch with fewer than two modalities is trained plainly.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mindgap.base.hosted import KEYS, mixed, positions
from mindgap.base.settings import Share
from mindgap.parts.mitigations.alone import (
    Strength,
    over_the_others,
    owners,
    represented,
    rescaled,
    true_class_share,
)
from mindgap.parts.mitigations.base import Mitigation, Network, Step


class OgmGe(Mitigation):
    """Gradients of the leading modality's encoder times 1 - tanh(alpha * lead), noise on all encoders.

    `until` is the share of the epochs in which it acts, from the first on; `noise` switches GE off. With an
    alpha of 0 there is neither.
    """

    def __init__(self, alpha: Strength = 0.3, until: Share = 1.0, noise: bool = True):
        self.alpha, self.until, self.noise = alpha, until, noise

    def start(self, model: Network, epochs: int) -> None:
        device = model.head.weight.device
        self.last = math.ceil(self.until * epochs)
        self.seed = torch.randint(KEYS, ()).to(device)
        self.steps = torch.zeros((), dtype=torch.int64, device=device)

    def loss(self, step: Step) -> Tensor:
        if self.alpha:
            on = step.epoch < self.last
            self.some_M = represented(step.present) & on
            rho_M = over_the_others(true_class_share(step), self.some_M)
            self.factor_M = torch.where(rho_M > 1, 1 - torch.tanh(self.alpha * rho_M), torch.ones_like(rho_M))
        return super().loss(step)

    def gradients(self, step: Step, gradients: Mapping[str, Sequence[Tensor]]) -> Sequence[Tensor]:
        plain_P = super().gradients(step, gradients)
        if not self.alpha:
            return plain_P
        owner_P = owners(step.model)
        scaled_P = rescaled(plain_P, owner_P, self.factor_M)
        if not self.noise:
            return scaled_P
        key = mixed(self.steps ^ self.seed)
        return [
            g
            if m is None or g.dim() < 2 or g.numel() < 2
            else g + (plain.std() * self.some_M[m]) * normal(g.shape, mixed(key ^ (k + 1)), g.dtype)
            for k, (g, plain, m) in enumerate(zip(scaled_P, plain_P, owner_P, strict=True))
        ]

    def after_step(self, step: Step) -> None:
        self.steps.add_(1)


def normal(shape: torch.Size, key: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard normal numbers from a key below KEYS, on any device: Box and Muller's, of two hashes."""
    radius = mixed(positions.__wrapped__(shape, key.device) ^ key)
    angle = mixed(radius ^ key)
    radius, angle = ((x.to(dtype) + 0.5) / KEYS for x in (radius, angle))
    return (-2 * radius.log()).clamp(min=0).sqrt() * torch.cos(2 * math.pi * angle)
