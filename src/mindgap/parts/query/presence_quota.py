"""Presence quota: Entropy, with a share of each batch kept for samples that have the scarcest modality.

Formula: of n picks the first ceil(share n), or as many as there are, are those of the largest entropy among
samples that have modality m, the rest those of the largest entropy among all others. m is the modality that
the fewest labelled samples have. Ours, as a comparison for methods that find such samples by themselves.
"""

import math

import torch
from torch import Tensor

from mindgap.base.settings import Share
from mindgap.base.view import PoolView
from mindgap.parts.query.contract import clamp
from mindgap.parts.query.entropy import entropy_of
from mindgap.parts.query.kernels import top_k
from mindgap.parts.query.unimodal import position


def presence_quota(view: PoolView, n: int, share: Share = 0.5, modality: str | None = None) -> Tensor:
    """n unsure samples, at least `share` of them with the scarcest modality, or `modality` by name."""
    n = clamp(n, view.size)
    # the first of equal ones in the dataset's order
    m = int(view.labelled_present_LM.sum(0).argmin()) if modality is None else position(view, modality)
    order_N = top_k(entropy_of(view.log_probs_NC), view.size, view.rng)
    has_N = view.present_NM[order_N, m]
    reserved_N = has_N & (has_N.cumsum(0) <= math.ceil(share * n))
    return torch.cat([order_N[reserved_N], order_N[~reserved_N]])[:n]
