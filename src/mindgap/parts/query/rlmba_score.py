"""rlmba_score: the score of RL-MBA (arXiv 2603.25107, CVPR 2026), without its policy; a reconstruction, no
code is public.

From a published note with the paper's equations:

    Delta_m = Top1_m - Top1_all on the validation set, w = softmax(Delta / tau), at least `floor`;
    alpha_f = 1 + sum_m w_m (alpha_m - 1);
    U(alpha) = 1/C sum_c alpha_c (alpha_0 - alpha_c) / (alpha_0^2 (alpha_0 + 1)), alpha_0 = sum_c alpha_c;
    d = distance to the nearest centre of k-means (k-means++, k = n, at most five passes) on fused features;
    q = sum_m w_m u~_m + beta d~, u~ and d~ scaled to 0..1 over the round's pool.

Ours: alpha_m = 1 + softplus(logits with m alone), where the authors train evidential heads; u_m = U(alpha_m);
tau, floor and beta; `towards: weak`, which has softmax(-Delta / tau): w as published grows for the modality
that does *better*; `difficulty: fused`, which has u~ of alpha_f in place of the sum. The fused features are
the model's own, its fusion is not weighted by w. An absent modality has alpha 1 and no weight, w is over
those a sample has. The clustering costs about five times BADGE's distances.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from mindgap.base.settings import Share
from mindgap.base.view import Measured, PoolView
from mindgap.parts.query.clustering import k_means
from mindgap.parts.query.contract import check_finite, clamp
from mindgap.parts.query.kernels import sample_proportional, top_k
from mindgap.parts.query.unimodal import alone, floored_shares, logits_alone

PASSES = 5  # of Lloyd's, at most
Tau = Annotated[float, Field(gt=0, le=1e6)]
Sharpness = Annotated[float, Field(ge=0, le=1e3)]
Kappa = Annotated[int, Field(ge=1, le=100)]
Towards = Literal["strong", "weak"]
Difficulty = Literal["modalities", "fused"]


def rlmba_score(
    view: PoolView,
    n: int,
    tau: Tau = 0.1,
    floor: Share = 0.05,
    beta: Sharpness = 1.0,
    towards: Towards = "strong",
    difficulty: Difficulty = "modalities",
    draw: Literal["top", "sample"] = "top",
    kappa: Kappa = 5,
) -> Tensor:
    """The n samples with the largest q; `draw: sample`: n draws in proportion to q from the kappa n best."""
    n = clamp(n, view.size)
    q_N = score(view, n, tau, floor, beta, towards, difficulty).q_N
    if draw == "top":
        return top_k(q_N, n, view.rng)
    best = top_k(q_N, min(view.size, kappa * n), view.rng)
    return best[sample_proportional(q_N[best], n, view.rng)]


@dataclass(frozen=True)
class Score:
    """What q is made of, in float64: u~ N x M (0 where absent), d~ N, w M, q N."""

    u_NM: Tensor
    d_N: Tensor
    w_M: Tensor
    q_N: Tensor


def score(
    view: PoolView, n: int, tau: float, floor: float, beta: float, towards: Towards, difficulty: Difficulty
) -> Score:
    """The score of every sample, for a batch of n."""
    w_M = contribution_weights(view.validation.metrics, view, tau, floor, towards).to(view.device)
    check_finite(fused_NH=view.fused_NH)
    alpha_NMC = evidence(logits_alone(view), view.present_NM)
    u_NM = torch.stack(
        [unit_range(uncertainty(alpha_NMC[:, m]), view.present_NM[:, m]) for m in range(alpha_NMC.shape[1])],
        dim=1,
    )
    everyone_N = view.present_NM.any(1)
    d_N = unit_range(k_means(view.fused_NH, n, PASSES, view.rng)[1], everyone_N) if n else u_NM[:, 0] * 0
    weight_NM = present_weights(w_M, view.present_NM)
    if difficulty == "fused":
        hard_N = unit_range(uncertainty(fused_evidence(alpha_NMC, weight_NM)), everyone_N)
    else:
        hard_N = (weight_NM * u_NM).sum(1)
    return Score(u_NM, d_N, w_M, hard_N + beta * d_N)


def contributions(measured: Measured, view: PoolView) -> Tensor:
    """Delta (M, float64): accuracy with m alone less that with all; 0 where it is not known."""
    every = measured.get("+".join(view.modalities))
    found = alone(measured, view, lambda metrics: metrics.accuracy)
    deltas = [0.0 if own is None or every is None else own - every.accuracy for own in found]
    return torch.tensor(deltas, dtype=torch.float64)


def contribution_weights(
    measured: Measured, view: PoolView, tau: float, floor: float, towards: Towards
) -> Tensor:
    """w (M, float64), of sum 1, each at least `floor` (or 1/M)."""
    sign = {"strong": 1, "weak": -1}[towards]
    return floored_shares((sign * contributions(measured, view) / tau).softmax(0), floor)


def present_weights(w_M: Tensor, present_NM: Tensor) -> Tensor:
    """w N x M over the modalities that each sample has; 0 for the others."""
    weight_NM = w_M * present_NM
    total_N1, count_N1 = weight_NM.sum(1, keepdim=True), present_NM.sum(1, keepdim=True)
    return torch.where(total_N1 > 0, weight_NM / total_N1.clamp(min=1e-300), present_NM / count_N1)


def evidence(logits_NMC: Tensor, present_NM: Tensor) -> Tensor:
    """alpha N x M x C (float64) = 1 + softplus(logits); 1 where a modality is absent."""
    return 1 + softplus(logits_NMC.double()) * present_NM[:, :, None]


def fused_evidence(alpha_NMC: Tensor, weight_NM: Tensor) -> Tensor:
    """alpha_f N x C = 1 + sum_m w_m (alpha_m - 1)."""
    return 1 + (weight_NM[:, :, None] * (alpha_NMC - 1)).sum(1)


def uncertainty(alpha_NC: Tensor) -> Tensor:
    """U (N): the mean over classes of the variances of a Dirichlet distribution."""
    total_N1 = alpha_NC.sum(1, keepdim=True)
    return (alpha_NC * (total_N1 - alpha_NC) / (total_N1.square() * (total_N1 + 1))).mean(1)


def unit_range(x_N: Tensor, has_N: Tensor) -> Tensor:
    """0 to 1 over those that have it; 0 for the others, and for all where they are equal."""
    if not has_N.any():
        return torch.zeros_like(x_N)
    least, most = x_N[has_N].min(), x_N[has_N].max()
    span = most - least
    return torch.where(has_N & (span > 0), (x_N - least) / span.clamp(min=1e-300), 0.0)
