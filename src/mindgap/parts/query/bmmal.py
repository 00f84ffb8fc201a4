"""BMMAL (Shen et al., ACM MM 2023): BADGE on unimodal latents, shrunk where their modality contributes less.

A sample that one modality decides loses the other modalities' share of its gradient; balanced ones keep
theirs. The authors define contributions for two modalities; here they are exact Shapley values, which for two
are the same.
"""

from itertools import product
from math import factorial

import torch
from torch import Tensor

from mindgap.base.view import PoolView
from mindgap.parts.query.badge import residuals
from mindgap.parts.query.kernels import k_means_pp


def bmmal(view: PoolView, n: int) -> Tensor:
    """n samples by k-means++ on r (x) [s_1 z^1; ...; s_M z^M], r the residual of the fused prediction."""
    return k_means_pp(
        residuals(view.probs_NC), scaled_tokens(view.tokens_NMD, scales(shares(view))), n, view.rng
    )


def scaled_tokens(tokens_NMD: Tensor, scale_NM: Tensor) -> Tensor:
    """[s_1 z^1; ...; s_M z^M]: as all blocks share r, the embedding is an outer product."""
    return (tokens_NMD * scale_NM[:, :, None].to(tokens_NMD.dtype)).flatten(1)


def scales(share_NM: Tensor) -> Tensor:
    """1 for the strongest modality, 1 minus its lead for the rest."""
    return 1 - (share_NM.max(1, keepdim=True).values - share_NM)


def shares(view: PoolView) -> Tensor:
    """Each modality's share of the contributions to the predicted class's probability; rows add to 1.

    Where no modality contributes anything all have 1/M (the official code divides 0 by 0 there).
    """
    label_N1 = view.probs_NC.argmax(1, keepdim=True)
    modalities = view.present_NM.shape[1]
    value = {
        keep: view.probs_with(torch.tensor(keep)).gather(1, label_N1)[:, 0].double()
        for keep in product((False, True), repeat=modalities)
    }
    # an absent modality contributes exactly nothing, whatever two equal passes round to
    size_NM = shapley_values(value).abs() * view.present_NM
    total_N1 = size_NM.sum(1, keepdim=True)
    return torch.where(total_N1 > 0, size_NM / total_N1.clamp(min=1e-300), 1 / modalities)


def shapley_values(value: dict[tuple[bool, ...], Tensor]) -> Tensor:
    """Shapley values N x M from the value of each of the 2^M coalitions; they add to v(all) - v(none)."""
    modalities = len(next(iter(value)))
    weight = [factorial(k) * factorial(modalities - k - 1) / factorial(modalities) for k in range(modalities)]
    phi_M = []
    for m in range(modalities):
        without = [keep for keep in value if not keep[m]]
        gains = [
            weight[sum(keep)] * (value[(*keep[:m], True, *keep[m + 1 :])] - value[keep]) for keep in without
        ]
        phi_M.append(sum(gains))
    return torch.stack(phi_M, dim=1)
