"""AGM (Li et al., ICCV 2023): scale each encoder's gradients so that its lead stays what it was so far.

phi_m are the logits that modality m brings in by Shapley's formula over the subsets of modalities (of none
they are 0), and s_m = mean CE(phi_m, y). With M modalities

    r_m = exp(M / (M - 1) * (s_m - mean s)), and R_m the same from the running means of s
    gradients of encoder m: times exp(alpha * min(R_m - r_m, 7))

as BalanceBenchmark's code has it. Ours: what the source zeroes is masked; a running mean is over all steps of
the training so far, this one too, so the first step is a plain one; s_m is a mean over the samples that have
m, to whom the modalities that they lack bring nothing; M counts the modalities of the batch, and where these
are fewer than two the step is plain; an encoder is all weights before the fusion.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mindgap.parts.mitigations.alone import Strength, losses, mean_where, owners, represented, rescaled
from mindgap.parts.mitigations.base import Mitigation, Network, Step

MOST = 7.0  # of R - r, before the exponential


class Agm(Mitigation):
    """Gradients of each encoder times exp(alpha * (its running lead - its lead now)); 0 is plain training."""

    def __init__(self, alpha: Strength = 0.1):
        self.alpha = alpha

    def start(self, model: Network, epochs: int) -> None:
        like = model.head.weight
        self.sum_M = like.new_zeros(len(model.modalities)).detach()
        self.steps_M = torch.zeros_like(self.sum_M)

    def loss(self, step: Step) -> Tensor:
        if self.alpha:
            self.factor_M = self._factors(step)
        return super().loss(step)

    def gradients(self, step: Step, gradients: Mapping[str, Sequence[Tensor]]) -> Sequence[Tensor]:
        plain_P = super().gradients(step, gradients)
        return rescaled(plain_P, owners(step.model), self.factor_M) if self.alpha else plain_P

    @torch.no_grad()
    def _factors(self, step: Step) -> Tensor:
        some_M = represented(step.present)
        s_M = mean_where(losses(shapley_logits(step), step.labels), step.present)
        self.sum_M.add_(s_M * some_M)
        self.steps_M.add_(some_M)
        so_far_M = self.sum_M / self.steps_M.clamp(min=1)
        gap_M = _lead(so_far_M, some_M) - _lead(s_M, some_M)
        return torch.where(some_M, torch.exp(self.alpha * gap_M.clamp(max=MOST)), torch.ones_like(gap_M))


def _lead(score_M: Tensor, some_M: Tensor) -> Tensor:
    count = some_M.sum().clamp(min=2)
    centred_M = score_M - (score_M * some_M).sum() / count
    return torch.exp((count / (count - 1) * centred_M).clamp(max=80))  # below infinity, for their difference


def shapley_logits(step: Step) -> Tensor:
    """B x M x C: what each modality brings to the logits, 0 for one that a sample lacks."""
    modalities = range(step.present.shape[1])
    of = {
        kept: _logits_of(step, kept)
        for size in range(len(modalities) + 1)
        for kept in itertools.combinations(modalities, size)
    }
    parts = []
    for m in modalities:
        total = torch.zeros_like(of[()])
        for kept in of:
            if m not in kept:
                share = 1 / (len(modalities) * math.comb(len(modalities) - 1, len(kept)))
                total = total + share * (of[tuple(sorted((*kept, m)))] - of[kept])
        parts.append(total)
    return torch.stack(parts, dim=1)


def _logits_of(step: Step, kept: tuple[int, ...]) -> Tensor:
    """B x C; 0 for a sample that has none of those that are kept."""
    place_M = torch.arange(step.present.shape[1], device=step.present.device)
    keep_M = torch.zeros_like(step.present[0])
    for m in kept:
        keep_M = keep_M | (place_M == m)
    some_B1 = (step.present & keep_M).any(dim=1, keepdim=True)
    logits_BC = step.logits_of(keep_M) if kept else torch.zeros_like(step.logits)
    return logits_BC.to(step.model.head.weight.dtype) * some_B1
