"""ALFA-Mix (Parvaneh et al., CVPR 2022): samples whose prediction flips when they are mixed with a class.

A fused feature h is mixed with the mean feature z of each class's labelled samples, (1 - alpha) h + alpha z
(alpha by dimension). With the paper's closed form for alpha, g the gradient at h of the loss on the predicted
class,

    alpha = eps |z - h| / |g| * g / (z - h)       so the mixture is       h + eps |z - h| g / |g|

eps = cap / sqrt(D). Those whose prediction some class flips are candidates; `cap` grows in equal steps up to
1 until they are more than n. Of n clusters of the candidates' unit features the one nearest to each centre is
picked, the rest at random. As in the authors' code; a class without labels has the mean of all. On one ray
logits are linear, so the furthest class flips whatever any other does, and the least cap that does is known
without trying. Ours: of more than `most` times n candidates those of the least cap are clustered, so that
time does not depend on how many flip; random picks are without replacement; Lloyd's passes are counted.
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from mindgap.base.view import PoolView
from mindgap.parts.query.badge import residuals
from mindgap.parts.query.clustering import k_means
from mindgap.parts.query.contract import check_finite, clamp
from mindgap.parts.query.kernels import fill, top_k


def alfa_mix(
    view: PoolView,
    n: int,
    cap: Annotated[float, Field(gt=0, le=1)] = 0.03125,
    most: Annotated[int, Field(ge=1, le=1_000)] = 5,
    passes: Annotated[int, Field(ge=1, le=300)] = 20,
) -> Tensor:
    """n samples whose prediction is easily changed by what is labelled, far from each other."""
    h_ND = view.fused_NH
    check_finite(h_ND=h_ND, logits_NC=view.logits_NC)
    n = clamp(n, view.size)
    least_N = least_cap(view, anchors(view))
    ranked = top_k(-least_N.nan_to_num(posinf=1e300), view.size, view.rng)
    ranked = ranked[: count_within(least_N[ranked], n, cap)][: most * n]
    cluster_K, away_K = k_means(normalize(h_ND[ranked], dim=1), min(n, len(ranked)), passes, view.rng)
    cluster, closest = cluster_K.tolist(), dict[int, int]()
    for k in away_K.argsort(stable=True).tolist():
        closest.setdefault(cluster[k], k)
    return fill(ranked[list(closest.values())], view.size, n, view.rng)


def count_within(least_N: Tensor, n: int, cap: float) -> int:
    """How many of the least caps, in ascending order, are within the first step that has more than n."""
    counts = [int((least_N < step * cap).sum()) for step in range(1, math.ceil(1 / cap - 1e-9) + 1)]
    return next((count for count in counts if count > n), counts[-1])


def anchors(view: PoolView) -> Tensor:
    """C x D (float64): the mean feature of each class's labelled samples, of all where it has none."""
    h_LD, y_L = view.labelled_fused_LH.double(), view.labelled_y_L
    if not len(h_LD):
        return h_LD
    known = [h_LD[y_L == c] if (y_L == c).any() else h_LD for c in range(view.num_classes)]
    return torch.stack([of_class.mean(dim=0) for of_class in known])


def least_cap(view: PoolView, anchor_CD: Tensor) -> Tensor:
    """The least cap (N, float64) with which some class flips the prediction; infinity where none does."""
    if not len(anchor_CD):
        return torch.full((view.size,), torch.inf, dtype=torch.float64, device=view.device)
    weight_CD, h_ND = view.head_weight_CH.double(), view.fused_NH.double()
    logits_NC, label_N1 = view.logits_NC.double(), view.logits_NC.argmax(dim=1, keepdim=True)
    up_ND = residuals(view.probs_NC).double() @ weight_CD
    up_ND = up_ND / up_ND.norm(dim=1, keepdim=True).clamp(min=1e-300)
    slope_NC = up_ND @ weight_CD.T
    faster_NC = slope_NC - slope_NC.gather(1, label_N1)
    behind_NC = logits_NC.gather(1, label_N1) - logits_NC
    t_N = torch.where(faster_NC > 0, behind_NC / faster_NC, torch.inf).amin(dim=1)
    reach_N = torch.cdist(h_ND, anchor_CD).amax(dim=1)
    return t_N / reach_N.clamp(min=1e-300) * math.sqrt(h_ND.shape[1])
