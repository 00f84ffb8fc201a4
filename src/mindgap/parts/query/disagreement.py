"""Disagreement between the modalities' own predictions: query by committee with a modality for a member.

Formula: the generalised Jensen-Shannon divergence of the M_i present modalities' predictions over its
maximum, (H(mean_m p^m) - mean_m H(p^m)) / log min(M_i, C), 0 to 1, largest first: the vote entropy's soft
form (McCallum & Nigam 1998). It is 1 - easiness of `grace_r`.
"""

import torch
from torch import Tensor

from mindgap.base.view import PoolView
from mindgap.parts.query.grace_r import easiness
from mindgap.parts.query.kernels import top_k


def disagreement(view: PoolView, n: int) -> Tensor:
    """The n samples whose modalities disagree most; those of one modality come last."""
    return top_k(disagreement_of(view), n, view.rng)


def disagreement_of(view: PoolView) -> Tensor:
    """Divergence N, 0 to 1; -1 where there is but one modality, which has nothing to disagree with."""
    return torch.where(view.present_NM.sum(1) > 1, 1 - easiness(view), -1.0)
