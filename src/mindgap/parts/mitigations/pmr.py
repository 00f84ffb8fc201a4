"""PMR (Fan et al., CVPR 2023; prototypical modality rebalance): pull the slow modality to its class centres.

Of each modality m and class c, P_mc is the mean token, and p_m = softmax_c(-|z_m - P_mc|) what the prototypes
say. With s_m the mean of p_m[y], and rho_m = s_m / s_other,

    L = CE(l, y) + alpha * sum_m (clip(1 / rho_m - 1, 0, 1) * CE(p_m, y)
                                  - entropy * clip(rho_m - 1, 0, 1) * H(p_m))

the entropy in the first epochs only: it holds the fast modality back. Prototypes are made anew after each
epoch, `momentum` of the old ones in them (0.2, the authors' code). That code has weights of 0 and 1 for the
paper's clipped ones, and no entropy. Ours: prototypes are means of the tokens that the epoch's own steps saw,
as another pass over the data would be more than equal steps, so the first epoch is plain; tokens are those
behind the projection; a number of m is a mean over the samples that have m and whose class has a prototype
there; of more than two modalities s_other is the mean of the others; fewer than two are not balanced.
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mindgap.base.settings import Share
from mindgap.parts.mitigations.alone import (
    Strength,
    losses,
    mean_where,
    of_true_class,
    over_the_others,
    represented,
)
from mindgap.parts.mitigations.base import Mitigation, Network, Step

# Axes: B samples, M modalities, C classes, D width of a token.
FAR = 1e4  # the distance of a class without a prototype


class Pmr(Mitigation):
    """Prototype losses for the modality behind, weight `alpha` (0: plain training).

    `entropy` is the weight of the other's entropy beside them, in the share `until` of the epochs.
    """

    def __init__(
        self,
        alpha: Strength = 1.0,
        entropy: Strength = 0.1,
        until: Share = 0.2,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.2,
    ):
        self.alpha, self.entropy, self.until, self.momentum = alpha, entropy, until, momentum

    def start(self, model: Network, epochs: int) -> None:
        self.last = math.ceil(self.until * epochs)
        shape = len(model.modalities), model.head.out_features
        like = model.head.weight.detach()
        self.centre_MCD, self.sum_MCD = (like.new_zeros((*shape, model.spec.width)) for _ in range(2))
        self.known_MC, self.count_MC = (like.new_zeros(shape) for _ in range(2))

    def start_epoch(self, model: Network, epoch: int) -> None:
        mean_MCD = self.sum_MCD / self.count_MC.clamp(min=1).unsqueeze(2)
        kept_MC1 = (self.momentum * self.known_MC).unsqueeze(2)
        seen_MC1 = (self.count_MC > 0).unsqueeze(2)
        mixed_MCD = kept_MC1 * self.centre_MCD + (1 - kept_MC1) * mean_MCD
        self.centre_MCD.copy_(torch.where(seen_MC1, mixed_MCD, self.centre_MCD))
        self.known_MC.clamp_(min=seen_MC1.squeeze(2))
        self.sum_MCD.zero_()
        self.count_MC.zero_()

    def loss(self, step: Step) -> Tensor:
        if not self.alpha:
            return super().loss(step)
        tokens_BMD = step.tokens.to(self.centre_MCD.dtype)
        self._remember(step, tokens_BMD.detach())
        square_BMC = (tokens_BMD.unsqueeze(2) - self.centre_MCD).square().sum(dim=3)
        near_BMC = -square_BMC.clamp(min=torch.finfo(square_BMC.dtype).tiny).sqrt()
        near_BMC = torch.where(self.known_MC > 0, near_BMC, -FAR)
        has_BM = step.present & (self.known_MC > 0)[:, step.labels].T
        logs_BMC = near_BMC.log_softmax(dim=2)
        true_BM = of_true_class(logs_BMC.detach().exp(), step.labels)
        some_M = represented(has_BM)
        ratio_M = over_the_others(mean_where(true_BM, has_BM), some_M)
        behind_M = (1 / ratio_M.clamp(min=1e-6) - 1).clamp(0, 1) * some_M
        entropy_BM = -(logs_BMC.exp() * logs_BMC).sum(dim=2)
        ahead_M = (ratio_M - 1).clamp(0, 1) * (step.epoch < self.last) * self.entropy
        own_M = behind_M * mean_where(losses(near_BMC, step.labels), has_BM)
        return super().loss(step) + self.alpha * (own_M - ahead_M * mean_where(entropy_BM, has_BM)).sum()

    def _remember(self, step: Step, tokens_BMD: Tensor) -> None:
        """Add a step's tokens to those of their classes."""
        classes = torch.arange(self.count_MC.shape[1], device=step.labels.device)
        is_BC = (step.labels.unsqueeze(1) == classes).to(tokens_BMD.dtype)
        is_MCB = torch.einsum("bm,bc->mcb", step.present.to(tokens_BMD.dtype), is_BC)
        self.sum_MCD.add_(is_MCB @ tokens_BMD.transpose(0, 1))
        self.count_MC.add_(is_MCB.sum(dim=2))
