"""Shared by the mitigations that weigh modalities: how well each does alone, and which weights are its own.

A number per modality is made from the samples that have it. Where a batch has fewer than two modalities there
is nothing to balance, and its step is the plain one.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from mindgap.parts.mitigations.base import Network, Step

# Axes: B samples, M modalities, C classes, P parameters.
Strength = Annotated[float, Field(ge=0, le=1e6)]


def each_alone(step: Step) -> Tensor:
    """B x M x C: the logits of each modality alone. Rows without it mean nothing."""
    each = torch.eye(step.present.shape[1], dtype=torch.bool, device=step.present.device)
    return torch.stack([step.logits_of(keep_M) for keep_M in each], dim=1)


def losses(logits_BMC: Tensor, labels_B: Tensor) -> Tensor:
    """B x M: the cross-entropy of each."""
    labels_BM = labels_B.unsqueeze(1).expand(logits_BMC.shape[:2])
    losses_BM = cross_entropy(logits_BMC.flatten(0, 1), labels_BM.flatten(), reduction="none")
    return losses_BM.view(labels_BM.shape)


@torch.no_grad()
def true_class_share(step: Step) -> Tensor:
    """M: the mean probability that each modality alone gives the true class."""
    probs_BMC = each_alone(step).to(step.model.head.weight.dtype).softmax(dim=2)
    return mean_where(of_true_class(probs_BMC, step.labels), step.present)


def of_true_class(probs_BMC: Tensor, labels_B: Tensor) -> Tensor:
    """B x M: the probabilities of each sample's label."""
    return probs_BMC.gather(2, labels_B.view(-1, 1, 1).expand(-1, probs_BMC.shape[1], 1)).squeeze(2)


def mean_where(values_BM: Tensor, have_BM: Tensor) -> Tensor:
    """M: the mean over the samples that have a modality; 0 where none has."""
    have_BM = have_BM.to(values_BM.dtype)
    return (values_BM * have_BM).sum(dim=0) / have_BM.sum(dim=0).clamp(min=1)


def represented(present_BM: Tensor) -> Tensor:
    """M: whether any sample of the batch has it; nowhere true where fewer than two are."""
    some_M = present_BM.any(dim=0)
    return some_M & (some_M.sum() >= 2)


def over_the_others(score_M: Tensor, some_M: Tensor) -> Tensor:
    """M: each score divided by the mean of the others of those that `some_M` names; 0 for the rest.

    Of two modalities this is the ratio of the two.
    """
    score_M = score_M * some_M
    others_M = (score_M.sum() - score_M) / (some_M.sum() - 1).clamp(min=1)
    return score_M / others_M.clamp(min=torch.finfo(score_M.dtype).eps)


def owners(model: Network) -> list[int | None]:
    """Whose each trained weight of the model is (P): the position of a modality, None for what all share."""
    of = {
        id(p): m
        for m, name in enumerate(model.modalities)
        for part in model.parts[name]
        for p in part.parameters()
    }
    return [of.get(id(p)) for p in model.parameters() if p.requires_grad]


def rescaled(gradients_P: Sequence[Tensor], owner_P: Sequence[int | None], factor_M: Tensor) -> list[Tensor]:
    """The gradients, those of each modality's weights times its factor; `owner_P` may be shorter."""
    rest = [None] * (len(gradients_P) - len(owner_P))
    return [
        g if m is None else g * factor_M[m].to(g.dtype)
        for g, m in zip(gradients_P, [*owner_P, *rest], strict=True)
    ]
