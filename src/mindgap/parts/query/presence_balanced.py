"""Control: what balance over modality presence alone would buy, without a look at any prediction."""

import torch
from torch import Tensor

from mindgap.base.view import PoolView
from mindgap.parts.query.kernels import pick_balanced


def presence_balanced(view: PoolView, n: int) -> Tensor:
    """Random samples of the presence pattern with the fewest labels, one by one.

    A pattern is a row of the presence matrix: "only A", "only B" and "A and B" are three groups. Labelled and
    acquired together are as balanced over the patterns as the pool allows; with one pattern it is Random.
    """
    bits_M = 2 ** torch.arange(view.present_NM.shape[1], device=view.device)
    pattern_N = (view.present_NM * bits_M).sum(1)
    labelled_L = (view.labelled_present_LM * bits_M).sum(1)
    return pick_balanced(pattern_N, torch.bincount(labelled_L, minlength=2 ** len(bits_M)), n, view.rng)
