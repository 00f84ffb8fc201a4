"""BADGE (Ash et al. 2020): k-means++ seeding on the gradient of the last layer at the predicted label.

The gradient is r (x) h, residual times fused feature; it is never written out (Zhang et al. 2023). Bias
excluded.
"""

import torch
from torch import Tensor

from mindgap.base.view import PoolView
from mindgap.parts.query.contract import check_finite
from mindgap.parts.query.kernels import k_means_pp


def badge(view: PoolView, n: int) -> Tensor:
    """n samples with long and mutually distant gradients; the first is the longest."""
    return k_means_pp(residuals(view.probs_NC), view.fused_NH, n, view.rng)


def residuals(probs_NC: Tensor, label_N: Tensor | None = None) -> Tensor:
    """p - onehot(label); of the predicted class where no label is given.

    The label's entry is minus the sum of all others: 1 - p rounds to 0 long before they do.
    """
    check_finite(probs_NC=probs_NC)
    label_N1 = (probs_NC.argmax(1) if label_N is None else label_N)[:, None]
    r_NC = probs_NC.scatter(1, label_N1, 0.0)
    return r_NC.scatter(1, label_N1, -r_NC.sum(1, keepdim=True, dtype=torch.float64).to(r_NC.dtype))
