"""Control: what picks are worth that know the answer. It reads the pool's labels, so it is no query method.

An upper bound of what a greedy choice can do for the linear layer, ours. Of each sample i with its true label
g_i = r_i (x) h_i is the gradient of the layer, r = p - onehot(y), and G the mean of them over the validation
set, with the modalities that each sample has. A step along -g_i lowers the validation loss by

    eta <g_i, G> = eta r_i' G h_i        to first order,  eta = step / mean |h|^2

The sample of the largest is picked, the step is taken, which moves all predictions (W h changes by
-eta r_i (h_i . h)), and the next pick follows from those. No model is trained in between, so the bound is
that of the layer on this round's features and not of the training that follows.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mindgap.base.view import PoolView
from mindgap.parts.query.badge import residuals
from mindgap.parts.query.contract import check_finite, clamp
from mindgap.parts.query.kernels import WeightedDraws

# Axes as in a `PoolView`; V validation samples.


def greedy_oracle(view: PoolView, n: int, step: Annotated[float, Field(gt=0, le=1e3)] = 1.0) -> Tensor:
    """n samples, each of which lowers the validation loss most after those before it."""
    h_ND, h_VD = view.fused_NH, view.validation.fused_NH
    logits_NC, logits_VC = view.logits_NC, view.validation.logits_NC
    check_finite(h_ND=h_ND, logits_NC=logits_NC, h_VD=h_VD, logits_VC=logits_VC)
    n = clamp(n, view.size)
    draws = WeightedDraws(view.size, n, view.rng, view.device)
    eta = step / h_ND.square().sum(dim=1).mean().clamp(min=torch.finfo(h_ND.dtype).tiny)
    for _ in range(n):
        r_NC = residuals(logits_NC.softmax(dim=1), view.oracle_y_N)
        r_VC = residuals(logits_VC.softmax(dim=1), view.validation.y_N)
        slope_CD = r_VC.T @ h_VD / max(1, len(h_VD))
        pick = draws.largest((r_NC * (h_ND @ slope_CD.T)).double().sum(dim=1))
        move_C = eta * r_NC[pick]
        logits_NC = logits_NC - (h_ND @ h_ND[pick])[:, None] * move_C
        logits_VC = logits_VC - (h_VD @ h_ND[pick])[:, None] * move_C
    return draws.result()
