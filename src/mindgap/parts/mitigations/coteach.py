"""coteach: the fused model labels pool samples of which the weak modality alone is trained on; ours.

Registered before any run of it. After each round's pick the model predicts the pool. Of the samples that have
all modalities and were not picked, the k surest of each predicted class (largest fused probability, equal
ones in random order) are rows of the next training, with the predicted label and the weak modality alone. So
the strong modality, which decides the prediction, teaches the weak one, without a label.

The k surest of each class and never a threshold: sure samples are mostly of few classes. Steps are as many as
without: an epoch has the draws that the labelled samples alone would have, from all rows. With few labels
predictions are poor and k rows a class would swamp the labelled ones, so of each class there are at most
`most` L / C rows (rounded up), L labelled samples in the next training, C classes; and no more than there
are. Weak is the modality of the lowest balanced accuracy alone on the round's validation set.
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from mindgap.base.view import PoolView, weak_modality
from mindgap.parts.mitigations.base import Lesson, Mitigation


class Coteach(Mitigation):
    """The `k` surest pool samples per predicted class teach the weak modality; 0 is plain training.

    In all there are about `most` times as many of them as labelled samples, at most.
    """

    def __init__(
        self,
        k: Annotated[int, Field(ge=0, le=10_000)] = 30,
        most: Annotated[float, Field(gt=0, le=1e6)] = 3.0,
    ):
        self.k, self.most = k, most

    def teach(self, view: PoolView, free_N: Tensor) -> Lesson:
        everyone = free_N & view.present_NM.all(dim=1)
        if not self.k or not everyone.any():
            return Lesson(view.ids[:0], view.ids[:0], view.present_NM[:0])
        labelled = len(view.labelled_y_L) + int((~free_N).sum())
        k = min(self.k, math.ceil(self.most * labelled / view.num_classes))
        label_N = view.probs_NC.argmax(dim=1)
        rows = surest(view.probs_NC.amax(dim=1), label_N, everyone, k, view.rng)
        weak = weak_modality(view.validation.metrics, view.modalities)
        present_TM = torch.zeros_like(view.present_NM[rows])
        present_TM[:, weak] = True
        return Lesson(view.ids[rows], label_N[rows], present_TM)


def surest(sure_N: Tensor, label_N: Tensor, among_N: Tensor, k: int, rng: Generator) -> Tensor:
    """Positions of the k largest of each label among some samples, class by class."""
    order = torch.randperm(len(sure_N), generator=rng).to(sure_N.device)
    order = order[sure_N[order].argsort(descending=True, stable=True)]
    order = order[among_N[order]]
    return torch.cat([order[label_N[order] == c][:k] for c in label_N[order].unique()])
