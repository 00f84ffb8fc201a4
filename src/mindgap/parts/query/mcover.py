"""mcover: cover the pool in every modality's own space; ours, registered before any run of it.

    F(L) = sum_m w_m / n_m sum_{i has m} max_{j in L, j has m} k_m(i, j), greedy,

k_m(i, j) = exp(-|z_i^m - z_j^m|^2 / (bandwidth s_m)^2), z^m the token of m, s_m its median norm in the pool.
L begins as the labelled samples. A sample without m cannot cover m, so a quota of complete samples follows
without a rule.

    w_m = f + (1 - M f) v_m / sum v,  v_m = max(0, how much NLL_m fell a round),  f = min(floor, 1/M),

on the validation set with m alone: labels go to what still learns by them, and none is forgotten. Registered
are F, the kernel over the median norm, weights by the fall of NLL and the floor; ours to choose were the form
of w, the window and the references (`cover`).
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mindgap.base.settings import Share
from mindgap.base.view import PoolView
from mindgap.parts.query.cover import Space, greedy_cover
from mindgap.parts.query.unimodal import alone, floored_shares


def mcover(
    view: PoolView,
    n: int,
    floor: Share = 0.2,
    bandwidth: Annotated[float, Field(gt=0, le=100)] = 1.0,
    window: Annotated[int, Field(ge=1, le=1_000)] = 3,
    references: Annotated[int, Field(ge=1, le=8_192)] = 512,
) -> Tensor:
    """n samples that cover most of the pool in each modality, weighted by how fast its likelihood rises.

    `window`: the fall of NLL is that since the first round within so many before this one.
    """
    weights = floored_shares(falls(view, window), floor).tolist()
    spaces = [
        Space(
            view.tokens_NMD[:, m],
            view.present_NM[:, m],
            view.labelled_tokens_LMD[view.labelled_present_LM[:, m], m],
            bandwidth * median_norm(view.tokens_NMD[view.present_NM[:, m], m]),
            weight,
        )
        for m, weight in enumerate(weights)
    ]
    return greedy_cover(spaces, n, view.rng, references)


def falls(view: PoolView, window: int) -> Tensor:
    """v (M, float64): nats by which NLL_m fell per round, 0 where it rose or nothing is known of it."""
    now = alone(view.validation.metrics, view, lambda metrics: metrics.nll)
    earlier = [round for round in view.history if view.round - window <= round < view.round]
    if not earlier:
        return torch.zeros(len(now), dtype=torch.float64)
    before = alone(view.history[min(earlier)], view, lambda metrics: metrics.nll)
    rounds = view.round - min(earlier)
    fell = [0.0 if a is None or b is None else (a - b) / rounds for a, b in zip(before, now, strict=True)]
    return torch.tensor(fell, dtype=torch.float64).clamp(min=0)


def median_norm(x_ND: Tensor) -> float:
    """The median length of the rows; 1 where there is none, or it is 0."""
    return (torch.linalg.vector_norm(x_ND.double(), dim=1).median().item() if len(x_ND) else 0.0) or 1.0
