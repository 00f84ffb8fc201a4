from collections.abc import Iterator

import torch
from torch import Tensor

from mindgap.parts.evaluators.contract import Context, Row


def balanced_accuracy(model, split, context: Context) -> Iterator[Row]:
    """Mean recall over the classes that occur, on each subset of modalities."""
    return context.of_subsets("balanced_accuracy", mean_recall)


def mean_recall(probs_KC: Tensor, y_K: Tensor) -> Tensor:
    """Over the classes that occur in `y_K`, on its device; NaN where there are none."""
    of_class_KC = y_K.unsqueeze(1) == torch.arange(probs_KC.shape[1], device=y_K.device)
    right_K1 = (probs_KC.argmax(dim=1) == y_K).unsqueeze(1)
    count_C, right_C = of_class_KC.sum(dim=0).double(), (of_class_KC & right_K1).sum(dim=0).double()
    return (right_C / count_C.clamp(min=1)).sum() / (count_C > 0).sum()
