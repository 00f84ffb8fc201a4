"""teach: BADGE in which the fused prediction teaches each modality; ours, registered before any run of it.

Once a strong modality is fitted the fused residual vanishes, and with it the gradient of BADGE and BMMAL,
whatever the weak modality still gets wrong. Here the fused prediction is the label, and each modality alone
is the pupil:

    g_i = [lambda_m r_i^m (x) z_i^m for each m],  r_i^m = p_i(. | m) - onehot(argmax_c p_i(c)),
    lambda_m = (NLL_m / min_k NLL_k)^power,  power = 1/2, on the validation set,

z^m the token of m, 0 where m is absent, so that its block is 0. k-means++ on |g_i - g_j|^2 = sum_m lambda_m^2
(factorised distance of block m): M times BADGE's cost at most.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mindgap.base.view import PoolView
from mindgap.parts.query.badge import residuals
from mindgap.parts.query.blocks import k_means_pp_blocks
from mindgap.parts.query.unimodal import alone, only

# The least mean likelihood in nats: below it a modality has nothing left to learn, and a ratio no meaning.
LEAST_NLL = 1e-6


def teach(view: PoolView, n: int, power: Annotated[float, Field(ge=0, le=10)] = 0.5) -> Tensor:
    """n samples whose modalities would learn most, and most differently, from the fused prediction."""
    label_N = view.probs_NC.argmax(1)
    blocks = []
    for m, pupil in enumerate(pupil_weights(view, power).tolist()):
        r_NC = residuals(view.probs_with(only(view, m)), label_N)
        blocks.append((pupil * r_NC, view.tokens_NMD[:, m]))
    return k_means_pp_blocks(blocks, n, view.rng)


def pupil_weights(view: PoolView, power: float) -> Tensor:
    """lambda (M, float64): 1 for the best modality; also 1 for one that no validation sample has."""
    nll = alone(view.validation.metrics, view, lambda metrics: max(metrics.nll, LEAST_NLL))
    best = min((one for one in nll if one is not None), default=1.0)
    return torch.tensor([1.0 if one is None else (one / best) ** power for one in nll], dtype=torch.float64)
