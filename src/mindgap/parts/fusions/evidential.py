"""Evidential fusion: each modality gives evidence of each class, whose mean is a Dirichlet distribution."""

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mindgap.parts.fusions.weighing import PerModality, there

# Axes: N samples, M modalities, D width, C classes.


class EvidentialFusion(nn.Module):
    """Dirichlet of alpha = 1 + the mean evidence of the present modalities, each softplus(W_m token_m).

    The averaged form (alpha_f = 1 + sum_m w_m (alpha_m - 1), arXiv 2603.25107) with equal weights, and not
    Dempster's rule, whose conflict two sure and contrary modalities make undefined. Features are log alpha,
    and the linear layer behind them is the identity: the softmax is alpha over its sum, the expected
    probability. Cross-entropy on it is the type II maximum likelihood of Sensoy et al. (2018, eq. 3). The
    reliability of a modality is 1 - its vacuity: of C classes and evidence E in all, E / (E + C).
    """

    def __init__(self, modalities: int, width: int):
        super().__init__()
        self.modalities, self.width = modalities, width

    def head(self, classes: int) -> nn.Linear:
        """The layers that give evidence are made here: they have to know the classes."""
        self.linears, self.out_features = PerModality(self.modalities, self.width, classes), classes
        return Identity(classes)

    def forward(self, tokens_NMD: Tensor, present_NM: Tensor) -> tuple[Tensor, Tensor]:
        evidence_NMC = self.evidence(tokens_NMD, present_NM)
        count_N1 = present_NM.sum(dim=1, keepdim=True).clamp(min=1)
        of_all_NM = evidence_NMC.sum(dim=-1)
        return (evidence_NMC.sum(dim=1) / count_N1).log1p(), of_all_NM / (of_all_NM + self.out_features)

    def evidence(self, tokens_NMD: Tensor, present_NM: Tensor) -> Tensor:
        """Of each class by each modality, N x M x C: alpha - 1 of its own Dirichlet, 0 where it is absent."""
        return softplus(self.linears(there(tokens_NMD, present_NM))) * present_NM.unsqueeze(-1)


class Identity(nn.Linear):
    """A linear layer that hands on what it gets, and is not trained."""

    def __init__(self, classes: int):
        super().__init__(classes, classes)
        del self.weight, self.bias
        self.register_buffer("weight", torch.eye(classes))
        self.register_buffer("bias", torch.zeros(classes))
