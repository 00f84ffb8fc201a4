"""grace_r: our reconstruction from the abstract of GRACE (Li et al., ACM MM 2024); NOT the authors' method.

The abstract names the parts (gradient magnitude, distance, agreement of modalities, a curriculum from easy to
hard); no formula, schedule or code is public. Every formula below is ours: never report its numbers as
GRACE's.
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mindgap.base.gpu import repeat
from mindgap.base.view import PoolView
from mindgap.parts.query.badge import residuals
from mindgap.parts.query.contract import check_finite, clamp
from mindgap.parts.query.kernels import OuterProducts, WeightedDraws
from mindgap.parts.query.resident import ResidentDraws, ResidentProducts


def grace_r(view: PoolView, n: int, gamma: Annotated[float, Field(ge=0, le=100)] = 2.0) -> Tensor:
    """n draws with probability ~ ((1 - t) easiness + t value)^gamma, t from 0 to 1 over the rounds.

    Value is the rank of the BADGE gradient's length times the rank of its squared distance to the nearest
    labelled (at its true label) or already picked one; easiness is the agreement of the unimodal predictions.
    """
    check_finite(fused_NH=view.fused_NH, labelled_fused_LH=view.labelled_fused_LH)
    n = clamp(n, view.size)
    t = view.round / max(1, view.rounds - 1)
    on_gpu = view.device.type == "cuda"
    products, draws_of = (ResidentProducts, ResidentDraws) if on_gpu else (OuterProducts, WeightedDraws)
    points = products(residuals(view.probs_NC), view.fused_NH)
    labelled_r_LC = residuals(view.labelled_probs_LC, view.labelled_y_L)
    nearest_N = torch.full_like(points.norm_N, torch.inf)
    points.lower(nearest_N, products(labelled_r_LC, view.labelled_fused_LH))
    draws = draws_of(view.size, n, view.rng, view.device)
    length_N, easiness_N = rank01(points.norm_N), easiness(view)

    def pick() -> None:
        weights_N = ((1 - t) * easiness_N + t * length_N * rank01(nearest_N)) ** gamma
        points.lower(nearest_N, points[draws.draw(weights_N).view(1)])

    repeat(pick, n, view.device)
    return draws.result()


def rank01(x_N: Tensor) -> Tensor:
    """Ranks from 0 to 1, equal values at their mean rank."""
    ordered_N = x_N.sort().values
    twice_N = torch.searchsorted(ordered_N, x_N) + torch.searchsorted(ordered_N, x_N, right=True) - 1
    return twice_N.double() / (2 * max(1, len(x_N) - 1))


def easiness(view: PoolView) -> Tensor:
    """1 minus the Jensen-Shannon divergence of the present modalities' predictions over its maximum, 0 to 1.

    One modality cannot disagree with itself: such samples get the median of the rest of the pool, or 1
    without a rest.
    """
    eye_MM = torch.eye(view.present_NM.shape[1], dtype=torch.bool)
    probs_NMC = torch.stack([view.probs_with(keep_M) for keep_M in eye_MM], dim=1).double()
    check_finite(unimodal_probs_NMC=probs_NMC)
    weight_NM = view.present_NM.double()
    count_N = weight_NM.sum(1)
    mean_NC = (probs_NMC * weight_NM[:, :, None]).sum(1) / count_N[:, None]
    mean_entropy_N = (_entropy(probs_NMC) * weight_NM).sum(1) / count_N
    most_N = count_N.clamp(min=2, max=max(2, view.num_classes)).log()
    easiness_N = (1 - (_entropy(mean_NC) - mean_entropy_N) / most_N).clamp(0, 1)
    several = count_N > 1
    rest = easiness_N[several].median() if several.any() else math.nan
    return torch.where(several, easiness_N, rest).nan_to_num(1.0)


def _entropy(probs: Tensor) -> Tensor:
    return -torch.xlogy(probs, probs).sum(-1)
