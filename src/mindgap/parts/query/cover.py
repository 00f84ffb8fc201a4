"""Greedy coverage: each pick raises most what labelled and picked samples cover of the pool, in several
spaces.

F(L) = sum_m w_m / n_m sum_i max_{j in L, j has m} k_m(i, j), k_m(i, j) = exp(-|x_i^m - x_j^m|^2 / width_m^2),
i over n_m samples of the pool that have m, the references: all of them, or a random draw where there are
more. F is monotone and submodular, so a gain that was computed before bounds the gain now (lazy greedy;
Minoux 1978), and only the best bounds are computed anew. Gains are float64. N x (references) is never built.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mindgap.base.gpu import send
from mindgap.parts.query.contract import check_finite, clamp
from mindgap.parts.query.kernels import BLOCK, WeightedDraws

# Bounds that are computed anew at once.
AT_ONCE = 32


@dataclass(frozen=True)
class Space:
    """Where distances are measured: samples, who of them is in it, labelled ones (all in it), its weight."""

    x_ND: Tensor
    has_N: Tensor
    labelled_PD: Tensor
    width: float
    weight: float


def greedy_cover(spaces: Sequence[Space], n: int, rng: Generator, references: int) -> Tensor:
    """n positions, each of the largest gain in F; random among equal ones, and once nothing is gained."""
    for space in spaces:
        check_finite(x_ND=space.x_ND, labelled_PD=space.labelled_PD)
    size, device = len(spaces[0].x_ND), spaces[0].x_ND.device
    n = clamp(n, size)
    draws = WeightedDraws(size, n, rng, device)
    covers = [Cover(space, rng, references) for space in spaces if space.has_N.any()]

    def gains(rows: Tensor) -> Tensor:
        return sum((cover.gains(rows) for cover in covers), rows.new_zeros(len(rows), dtype=torch.float64))

    bound_N = gains(torch.arange(size, device=device))
    known_at_N = torch.zeros(size, dtype=torch.int64, device=device)
    for k in range(n):
        while True:
            top_B, rows_B = bound_N.topk(min(AT_ONCE, size))
            stale_B = (known_at_N[rows_B] < k) & (top_B > 0)
            # what is not computed anew is at most the last of these
            settled = top_B[~stale_B].max() if not stale_B.all() else top_B.new_tensor(-torch.inf)
            if not stale_B.any() or settled > top_B[stale_B].max():
                break
            stale = rows_B[stale_B]
            bound_N[stale], known_at_N[stale] = gains(stale), k
        pick = draws.largest(bound_N)
        bound_N[pick] = -torch.inf
        for cover in covers:
            cover.add(pick)
    return draws.result()


class Cover:
    """One space: how well each of its references is covered so far."""

    def __init__(self, space: Space, rng: Generator, references: int):
        self.space, x_ND = space, space.x_ND
        rows = space.has_N.nonzero()[:, 0]
        if len(rows) > references:
            rows = rows[send(torch.randperm(len(rows), generator=rng)[:references], x_ND.device)]
        self.reference_SD = x_ND[rows].double()
        self.square_S = self.reference_SD.square().sum(1)
        self.covered_S = torch.zeros(len(rows), dtype=torch.float64, device=x_ND.device)
        step = max(1, BLOCK // len(rows))
        for some_PD in space.labelled_PD.split(step) if len(space.labelled_PD) else ():
            self.covered_S = torch.maximum(self.covered_S, self.kernel(some_PD).amax(0))

    def kernel(self, x_BD: Tensor) -> Tensor:
        """k(x, reference), B x S."""
        x_BD = x_BD.double()
        distance2_BS = x_BD.square().sum(1)[:, None] + self.square_S - 2 * x_BD @ self.reference_SD.T
        return distance2_BS.clamp_(min=0).mul_(-1 / self.space.width**2).exp_()

    def gains(self, rows: Tensor) -> Tensor:
        """What each of these samples would add to this space's part of F; nothing where it is not in it."""
        space, gain_B = self.space, torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
        inside = space.has_N[rows].nonzero()[:, 0]
        for some in inside.split(max(1, BLOCK // len(self.covered_S))):
            more_BS = self.kernel(space.x_ND[rows[some]]).sub_(self.covered_S).clamp_(min=0)
            gain_B[some] = more_BS.sum(1) * (space.weight / len(self.covered_S))
        return gain_B

    def add(self, pick: Tensor) -> None:
        """Label one more sample."""
        if self.space.has_N[pick]:
            self.covered_S = torch.maximum(self.covered_S, self.kernel(self.space.x_ND[pick][None])[0])
