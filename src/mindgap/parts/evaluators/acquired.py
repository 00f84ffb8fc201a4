import math
from collections.abc import Iterator
from typing import Any

import torch

from mindgap.parts.evaluators.contract import Context, Row


def acquired(model: Any, split: Any, context: Context) -> Iterator[Row]:
    """Presence and class mix of what has been labelled so far, the start set with it.

    `presence`: share of the labelled samples that have a modality. `class_entropy`: of the classes' shares, 1
    where all classes have as many. `smallest_class` and `largest_class`: their shares.
    """
    labelled_L = context.labelled_L
    shares_M = context.train.present_NM[labelled_L].double().mean(dim=0)
    for name, share in zip(context.modalities, shares_M.tolist(), strict=True):
        yield "presence", name, share
    classes = next(iter(context.subsets.values())).probs_KC.shape[1]
    count_C = torch.bincount(context.train.y_N[labelled_L].cpu(), minlength=classes)
    share_C = count_C.double() / len(labelled_L)
    if classes > 1:
        yield "class_entropy", None, -torch.xlogy(share_C, share_C).sum().item() / math.log(classes)
    yield "smallest_class", None, share_C.min().item()
    yield "largest_class", None, share_C.max().item()
