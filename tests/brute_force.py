"""Selection by brute force in float64 on written-out vectors, from the same random numbers as the kernels."""

import torch


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def confident(n, classes, generator, sharpness=3.0):
    return (sharpness * torch.randn(n, classes, generator=generator)).softmax(1)


def clusters(n, width, generator):
    centres = 3 * torch.randn(7, width, generator=generator) + 10
    return centres[torch.arange(n) % 7] + 0.05 * torch.randn(n, width, generator=generator)


def first_largest(x, rank):
    return int(torch.where(x == x.max(), rank, len(x)).argmin())


def outer(r, h):
    return (r.double()[:, :, None] * h.double()[:, None, :]).flatten(1)


def brute_k_means_pp(r, h, n, generator):
    return brute_k_means_pp_on(outer(r, h), n, generator)


def brute_k_means_pp_on(g, n, generator):
    rank = torch.randperm(len(g), generator=generator)
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    picks = [first_largest(g.norm(dim=1), rank)]
    nearest = torch.full((len(g),), torch.inf, dtype=torch.float64)
    for k in range(1, n):
        nearest = torch.minimum(nearest, (g - g[picks[-1]]).square().sum(1))
        nearest[picks] = 0
        cumulative = nearest.cumsum(0)
        if cumulative[-1] > 0:
            picks.append(int(torch.searchsorted(cumulative, u[k] * cumulative[-1], right=True)))
        else:
            picks.append(min(set(range(len(g))) - set(picks), key=lambda i: int(rank[i])))
    return picks


def brute_k_center(x, centres, n, generator):
    rank = torch.randperm(len(x), generator=generator)
    x, picks = x.double(), []
    nearest = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for centre in centres.double():
        nearest = torch.minimum(nearest, (x - centre).square().sum(1))
    for _ in range(n):
        picks.append(first_largest(nearest, rank))
        nearest = torch.minimum(nearest, (x - x[picks[-1]]).square().sum(1))
        nearest[picks] = -1
    return picks
