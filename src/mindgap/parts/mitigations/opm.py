"""OPM (Wei et al., TPAMI 2024; on-the-fly prediction modulation): drop the modality that is ahead more often.

With rho_m = s_m / s_other, s_m the mean probability that m alone gives the true class,

    q_m = rate * (1 + slope * tanh(rho_m - 1)) where rho_m > 1, else 0

and in a share `applied` of the batches each sample loses modality m with probability q_m. As
BalanceBenchmark's code has it. Ours: rho is that of the epoch before (the source's of the step before), so
that no step waits for its scores, and the first epoch is a plain one; what is dropped is absent by the
mechanism of natural absence (the source zeroes its feature), and a sample keeps its last modality; of more
than two modalities s_other is the mean of the others. An epoch in which fewer than two modalities were seen
drops nothing in the next.
"""

import torch
from torch import Tensor

from mindgap.base.settings import Share
from mindgap.parts.mitigations.alone import Strength, over_the_others, represented, true_class_share
from mindgap.parts.mitigations.base import Mitigation, Network, Step


class Opm(Mitigation):
    """The leading modality is dropped, the more the further it leads; a `rate` of 0 is plain training."""

    def __init__(self, rate: Share = 0.4, slope: Strength = 0.5, applied: Share = 0.7):
        self.rate, self.slope, self.applied = rate, slope, applied
        self.rate_M: Tensor | None = None  # on the host

    def start(self, model: Network, epochs: int) -> None:
        modalities, like = len(model.modalities), model.head.weight
        self.rate_M = torch.zeros(modalities)
        self.sum_M, self.steps_M = (like.new_zeros(modalities).detach() for _ in range(2))

    def start_epoch(self, model: Network, epoch: int) -> None:
        if self.rate:
            self.rate_M.copy_(self.rates(self.sum_M / self.steps_M.clamp(min=1), self.steps_M > 0))
            self.sum_M.zero_()
            self.steps_M.zero_()

    def rates(self, score_M: Tensor, some_M: Tensor) -> Tensor:
        """M: how likely each modality is dropped, from its score; `some_M`: those that were seen."""
        ahead_M = (over_the_others(score_M, some_M) - 1).clamp(min=0)
        rate_M = (self.rate * (1 + self.slope * torch.tanh(ahead_M))).clamp(max=1)
        return rate_M * ((ahead_M > 0) & (some_M.sum() >= 2))

    def drop(self, present_NM: Tensor, rng: torch.Generator) -> Tensor:
        if not self.rate or self.rate_M is None:
            return present_NM
        draws_NM = torch.rand(present_NM.shape, generator=rng)
        acts = torch.rand((), generator=rng) < self.applied
        kept_NM = present_NM & ~((draws_NM < self.rate_M) & acts).to(present_NM.device)
        return torch.where(kept_NM.any(dim=1, keepdim=True), kept_NM, present_NM)

    def loss(self, step: Step) -> Tensor:
        if self.rate:
            some_M = represented(step.present)
            self.sum_M.add_(true_class_share(step) * some_M)
            self.steps_M.add_(some_M)
        return super().loss(step)
