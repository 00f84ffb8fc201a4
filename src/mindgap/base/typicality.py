"""How typical samples are of the others around them (Hacohen et al., ICML 2022)."""

import torch
from torch import Tensor

NEIGHBOURS = 20
BLOCK = 2**17  # distances at a time: 1 MiB, which stays in a core's cache


def mean_distance(x_ND: Tensor) -> Tensor:
    """Mean distance (N, float64) to the min(20, N / 2) nearest others; 0 for one sample.

    Typicality is its reciprocal.
    """
    near = min(NEIGHBOURS, len(x_ND) // 2)
    if not near:
        return torch.zeros(len(x_ND), dtype=torch.float64, device=x_ND.device)
    x_ND = x_ND.double()
    nearest = [
        # the nearest of all is the sample itself
        torch.cdist(some_BD, x_ND).topk(near + 1, dim=1, largest=False).values.sum(1) / near
        for some_BD in x_ND.split(max(1, BLOCK // len(x_ND)))
    ]
    return torch.cat(nearest)
