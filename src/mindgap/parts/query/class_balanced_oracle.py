"""Control: what class balance alone would buy. It reads the pool's labels, so it is no query method."""

import torch
from torch import Tensor

from mindgap.base.view import PoolView
from mindgap.parts.query.kernels import pick_balanced


def class_balanced_oracle(view: PoolView, n: int) -> Tensor:
    """Random samples of the class with the fewest labels, one by one.

    Labelled and acquired together are as balanced over classes as the pool allows.
    """
    counts_C = torch.bincount(view.labelled_y_L, minlength=view.num_classes)
    return pick_balanced(view.oracle_y_N, counts_C, n, view.rng)
